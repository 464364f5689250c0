"""``relabel-store status``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from . import build_text, options
from .printable import printable


@click.command()
@options.store_argument
@options.json_option
def status(store: Path | str, *, as_json: bool) -> None:
    """Show how far the build of STORE is, and who is at which part.

    Reads the journal, from any machine that sees the store, while others build. Exit status 1 means that parts were
    given up.
    """
    from relabel_store.inspect.status import status_of
    from relabel_store.store.reader import open_store

    found = status_of(open_store(store))
    click.echo(
        json.dumps(found.to_json(), indent=2) if as_json else printable(build_text.build_status(found))
    )
    click.get_current_context().exit(1 if found.failed else 0)

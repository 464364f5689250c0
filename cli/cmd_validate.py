"""``relabel-store validate``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from . import options, report_text


@click.command()
@options.store_argument
@click.option(
    "--level",
    type=click.Choice(["structure", "content"]),
    help="Look at one level only.  [default: both]",
)
@click.option("--strict", is_flag=True, help="Count warnings as errors.")
@options.json_option
@click.pass_context
def validate(
    ctx: click.Context, *, store: Path | str, level: str | None, strict: bool, as_json: bool
) -> None:
    """Check STORE against the format: whether it is whole, and its labels can be what they claim.

    Level structure takes seconds: manifest, names and sizes of files, journal, and sample table. Level content reads
    every byte once and looks at every label: two to three times as long as decoding them, on all cores.

    Exit status 0 means valid; 1 that there are errors; 3 that there is no store that this release reads. A store that
    is still being built is checked as far as it is recorded, and is an error.
    """
    from relabel_store.validate.run import validate_store

    from .progress import show_validation

    with show_validation(is_quiet=bool(ctx.obj)) as observer:
        report = validate_store(store, level=level, observer=observer)
    click.echo(json.dumps(report.to_json(), indent=2) if as_json else report_text.render(report))
    ctx.exit(1 if report.has_errors(strict=strict) else 0)

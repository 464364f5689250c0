"""``relabel-store cache``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from relabel_store.errors import OptionError

from . import listing_text, options
from .printable import printable

_cache_dir_option = click.option(
    "--cache-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where materialized stores lie; the default honours RELABEL_STORE_CACHE and the platform.",
)


@click.group()
def cache() -> None:
    """Materialized stores: label maps decoded once for training, shared by all processes of a machine."""


@cache.command("list")
@_cache_dir_option
@options.json_option
def list_command(*, cache_dir: Path | None, as_json: bool) -> None:
    """List materialized stores, the one used last first."""
    from relabel_store.store.cache import default_cache_dir, list_entries

    entries = list_entries(cache_dir)
    if as_json:
        click.echo(json.dumps({"entries": [entry.to_json() for entry in entries]}, indent=2))
        return
    click.echo(printable(listing_text.cache_entries(entries, cache_dir or default_cache_dir())))


@cache.command("add")
@options.store_argument
@_cache_dir_option
@click.option("--verify", is_flag=True, help="Compare all of an entry that is there with its checksums.")
def add_command(*, store: Path | str, cache_dir: Path | None, verify: bool) -> None:
    """Materialize STORE before a training run asks for it."""
    from relabel_store.store.cache import materialize_store
    from relabel_store.store.reader import open_store

    click.echo(materialize_store(open_store(store), cache_dir, verify=verify).path)


@cache.command("clear")
@click.argument("stores", nargs=-1, metavar="[STORE]...")
@click.option("--all", "clear_all", is_flag=True, help="Remove every entry.")
@_cache_dir_option
def clear_command(*, stores: tuple[str, ...], clear_all: bool, cache_dir: Path | None) -> None:
    """Remove materialized stores.

    STORE is the path of a label store, or the beginning of a digest as `cache list` shows it. Processes that
    have an entry open keep it until they end.
    """
    from relabel_store.store.cache import find_entries, list_entries, remove_entry

    if clear_all == bool(stores):
        raise OptionError("cache clear: expected stores or --all")
    entries = list_entries(cache_dir) if clear_all else find_entries(stores, cache_dir)
    for entry in entries:
        remove_entry(entry)
    click.echo(printable(listing_text.cleared_entries(entries)))

"""``relabel-store teachers``."""

from __future__ import annotations

import json

import click

from . import listing_text, options


@click.command()
@click.argument("pattern", required=False)
@options.json_option
@click.pass_context
def teachers(ctx: click.Context, *, pattern: str | None, as_json: bool) -> None:
    """List teachers by short name, and with PATTERN ('resnet*50*') also those of timm.

    Any other classifier of timm, an 'hf-hub:' id or your own 'module:factory' works as well; whether
    its dense map is exact is found out when it is loaded.
    """
    from relabel_store.generate.catalog import list_teachers

    entries = list_teachers(pattern)
    if as_json:
        click.echo(json.dumps({"teachers": [entry.to_json() for entry in entries]}, indent=2))
    elif entries:
        click.echo(listing_text.teachers(entries))
    if not entries:
        click.echo(f"No teacher matches {pattern!r}.", err=True)
        ctx.exit(1)

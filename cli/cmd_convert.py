"""``relabel-store convert``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from . import conversion_text, options
from .params import StoreType, ValueStepType
from .printable import printable
from .progress import show_conversion


@click.command()
@click.argument("source", metavar="SRC", type=StoreType())
@click.argument("destination", metavar="DST", type=StoreType())
@click.option("--from", "source_form", metavar="FORM", help="What SRC is.  [default: recognised]")
@click.option("--to", "target_form", metavar="FORM", help="What DST is to be.  [default: by its end]")
@click.option(
    "--images", metavar="SOURCE", help="The images that were labelled, to join and to hold the maps against."
)
@click.option(
    "--value-step",
    type=ValueStepType(),
    help="Round logits to multiples of this power of two, or 'exact'.  [default: 0.125; a store's stay as they are]",
)
@click.option(
    "--absent",
    type=click.Choice(["zero", "rest"]),
    help="Logit of a class that is not kept: 0, or an even share of the rest.  [default: zero]",
)
@click.option(
    "--class-names",
    type=click.Path(path_type=Path),
    help="The teacher's classes in order: text, one a line, or a JSON list.",
)
@click.option(
    "--num-classes",
    type=click.IntRange(1),
    help="Classes that the teacher tells apart.  [default: as the form says]",
)
@click.option(
    "--compression",
    type=click.Choice(["fast", "small"]),
    help="How hard to try to make a store small.  [default: fast]",
)
@click.option(
    "--workers", type=click.IntRange(1), help="Processes that read and write.  [default: one a core]"
)
@options.json_option
@click.pass_context
def convert(
    ctx: click.Context,
    *,
    source: Path | str,
    destination: Path | str,
    source_form: str | None,
    target_form: str | None,
    images: str | None,
    value_step: float | str | None,
    absent: str | None,
    class_names: Path | None,
    num_classes: int | None,
    compression: str | None,
    workers: int | None,
    as_json: bool,
) -> None:
    """Convert labels SRC, of whatever form, into DST.

    A conversion that was stopped goes on when the same command is run again. Exit status 1 means that it is
    finished and some samples have no label.
    """
    from relabel_store.convert.run import convert as convert_labels

    with show_conversion(is_quiet=bool(ctx.obj)) as observer:
        report = convert_labels(
            source,
            destination,
            source_form=source_form,
            target_form=target_form,
            images=images,
            value_step=value_step,
            absent=absent,
            class_names=class_names,
            num_classes=num_classes,
            compression=compression,
            workers=workers,
            observer=observer,
        )
    click.echo(
        json.dumps(report.to_json(), indent=2)
        if as_json
        else printable(conversion_text.conversion_report(report))
    )
    ctx.exit(1 if report.without_label else 0)

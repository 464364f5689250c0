"""``relabel-store repair``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from . import options, repair_text
from .main import EXIT_NO
from .printable import printable


@click.command()
@options.store_argument
@options.images_option
@click.option(
    "--drop",
    is_flag=True,
    help="Label nothing again: leave the rows of damaged parts without a label.",
)
@click.option(
    "--teacher",
    metavar="MODULE:FACTORY",
    help="The teacher, where the recorded name does not lead to it.  [default: the recorded one]",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="The file of the teacher's weights, where the store was built from one.",
)
@click.option(
    "--workers", type=click.IntRange(0), help="Processes that decode images.  [default: by the device]"
)
@options.json_option
@click.pass_context
def repair(
    ctx: click.Context,
    *,
    store: Path | str,
    images: str | None,
    drop: bool,
    teacher: str | None,
    weights: Path | None,
    workers: int | None,
    as_json: bool,
) -> None:
    """Make again what is damaged of STORE, and nothing else.

    Every file is compared with its recorded digest. Damaged parts are labelled again from `--images` with the teacher
    and the settings that the store records; files that describe the store are made from the others. Whatever comes out
    as it was recorded leaves the store the same, to its digest.

    Exit status 0 means that nothing is wrong with the store now, 1 that something still is, 3 that it cannot be
    repaired. A repair that was stopped goes on when it is run again.
    """
    from relabel_store.repair.run import repair_store

    from .progress import show_progress

    # For --teacher module:factory, as `python -m` finds modules in the folder that it is started in.
    sys.path.insert(0, str(Path.cwd()))
    with show_progress(is_quiet=bool(ctx.obj)) as observer:
        report = repair_store(
            store,
            images=images,
            drop=drop,
            teacher=teacher,
            weights=weights,
            workers=workers,
            observer=observer,
        )
    click.echo(
        json.dumps(report.to_json(), indent=2) if as_json else printable(repair_text.repair_report(report))
    )
    ctx.exit(0 if report.is_whole else EXIT_NO)

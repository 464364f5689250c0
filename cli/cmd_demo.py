"""``relabel-store demo``."""

from __future__ import annotations

from pathlib import Path

import click

from . import build_text, store_text
from .progress import show_progress


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.pass_context
def demo(ctx: click.Context, *, directory: Path) -> None:
    """Label nine photographs with a real teacher in DIR, and draw what it sees.

    Photographs and weights come from installed packages; nothing is downloaded.
    """
    from relabel_store.demo import INPUT_SIZE, TEACHER, run_demo
    from relabel_store.inspect.summary import summarize, summarize_sample
    from relabel_store.store.reader import open_store

    with show_progress(is_quiet=bool(ctx.obj)) as observer:
        report = run_demo(directory, observer)
    store = open_store(report.store)
    sample = summarize_sample(store, "chelsea")
    click.echo(
        "\n".join(
            [
                f"$ relabel-store build --teacher {TEACHER} --input-size {INPUT_SIZE} "
                f"--images {report.images} --out {report.store}",
                build_text.build_report(report.build),
                "",
                f"$ relabel-store inspect {report.store}",
                store_text.store_summary(summarize(store)),
                "",
                f"$ relabel-store inspect {report.store} {sample.sample_id}",
                store_text.sample_summary(sample, None),
                "",
                f"{len(report.pictures)} pictures: {report.pictures[0].parent}",
            ]
        )
    )

"""``relabel-store inspect``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options, store_text
from .params import require_outside
from .printable import printable

if TYPE_CHECKING:
    from relabel_store.images.source import ImageSource
    from relabel_store.store.reader import LabelStore


@click.command()
@options.store_argument
@click.argument("sample_id", required=False)
@options.images_option
@click.option(
    "--plot", type=click.Path(path_type=Path), help="Write a picture of the sample to this PNG file."
)
@options.json_option
def inspect(
    store: Path | str, *, sample_id: str | None, images: str | None, plot: Path | None, as_json: bool
) -> None:
    """Show what STORE holds, or the label map of one SAMPLE_ID.

    With --images and --plot the sample becomes a picture: the photo, the class that wins in each cell, and
    how sure the teacher is there.
    """
    from relabel_store.inspect.summary import summarize, summarize_sample
    from relabel_store.store.reader import open_store

    if sample_id is None and (plot is not None or images is not None):
        raise click.UsageError("--images and --plot show one sample: give its SAMPLE_ID after STORE")
    if (plot is None) != (images is None):
        raise click.UsageError("--plot draws on the photo: give --images and --plot together")
    if plot is not None and plot.suffix.lower() != ".png":
        raise click.UsageError(
            f"--plot {str(plot)!r}: only PNG is written; name it {plot.with_suffix('.png').name!r}"
        )
    if plot is not None:
        require_outside("--plot", plot, store)
    opened = open_store(store)
    if sample_id is None:
        summary = summarize(opened)
        click.echo(
            json.dumps(summary.to_json(), indent=2)
            if as_json
            else printable(store_text.store_summary(summary))
        )
        return
    sample = summarize_sample(opened, sample_id)
    if plot is not None and images is not None:
        from relabel_store.images.recognise import open_images

        _plot(opened, sample_id, open_images(images, beside=store), plot)
    click.echo(
        json.dumps(sample.to_json(), indent=2)
        if as_json
        else printable(store_text.sample_summary(sample, plot))
    )


def _plot(store: LabelStore, sample_id: str, source: ImageSource, plot: Path) -> None:
    from relabel_store.overlay import draw_sample, save_picture

    save_picture(draw_sample(store, sample_id, source), plot)

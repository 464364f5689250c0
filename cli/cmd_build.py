"""``relabel-store build``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from . import build_text
from .params import ChannelsType, InputSizeType, ShareType, StoreType, ValueStepType, require_outside
from .progress import show_progress

_FILE = click.Path(path_type=Path)


@click.command()
@click.option(
    "--teacher",
    required=True,
    help="An alias such as 'efficientnet_l2', a timm name, hf-hub:ID or module:factory.",
)
@click.option(
    "--images",
    required=True,
    metavar="SOURCE",
    help="A folder, tar, WebDataset shards, Parquet files, a list of paths, or a URL of one.",
)
@click.option(
    "--out",
    required=True,
    type=StoreType(),
    help="The store to write, or to go on with; s3:// and gs:// too.",
)
@click.option("--weights", type=_FILE, help="Load the teacher's weights from a .safetensors or .pth file.")
@click.option(
    "--class-names", type=_FILE, help="The teacher's classes in order: text, one a line, or a JSON list."
)
@click.option("--input-size", type=InputSizeType(), help="Pixels a side, or HxW.  [default: the teacher's]")
@click.option("--mean", type=ChannelsType(), help="Mean of each channel, 0 to 1.  [default: the teacher's]")
@click.option(
    "--std", type=ChannelsType(), help="Deviation of each channel, 0 to 1.  [default: the teacher's]"
)
@click.option(
    "--interpolation",
    type=click.Choice(["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]),
    help="How images are resized.  [default: the teacher's]",
)
@click.option(
    "--head",
    type=click.Choice(["replay", "linearized"]),
    help="How a head that is not linear scores a cell: on it alone, or by its tangent.  [default: replay]",
)
@click.option("--flip", is_flag=True, help="Average each map with the mirror image's: twice the time.")
@click.option(
    "--top-k", type=click.IntRange(1), default=5, show_default=True, help="Classes kept in each cell."
)
@click.option(
    "--value-step",
    type=ValueStepType(),
    default="0.125",
    show_default=True,
    help="Round logits to multiples of this power of two, or 'exact' for float16.",
)
@click.option(
    "--absent",
    type=click.Choice(["zero", "rest"]),
    help="Logit of a class that is not kept: 0, or an even share of the rest.  [default: zero, after a check]",
)
@click.option("--name", help="Name of the labels.  [default: images and teacher]")
@click.option("--licence", help="Licence of the labels, e.g. CC-BY-4.0.")
@click.option("--citation", multiple=True, help="What to cite for the labels; may be repeated.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N, or cuda:all.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    help="Arithmetic of the teacher's features.  [default: bf16 on a GPU that has it, else fp32]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    help="Images a batch.  [default: 8; on a GPU as many as gain]",
)
@click.option(
    "--workers", type=click.IntRange(0), help="Processes that decode images.  [default: by the device]"
)
@click.option("--compile", is_flag=True, help="Compile the teacher's features: minutes first, faster then.")
@click.option(
    "--shard-rows", type=click.IntRange(1), default=4096, show_default=True, help="Images a shard and part."
)
@click.option(
    "--encoding",
    type=click.Choice(["zarr", "parquet", "packed"]),
    help="How the store lies in files.  [default: as --out ends, .parquet or .packed; else zarr]",
)
@click.option("--limit", type=click.IntRange(1), help="Label only so many images, spread evenly over all.")
@click.option(
    "--on-bad-image",
    type=click.Choice(["record", "stop", "retry"]),
    default="record",
    show_default=True,
    help="Record an image that cannot be decoded and go on; stop; or try recorded ones anew.",
)
@click.option(
    "--share",
    type=ShareType(),
    help="Build only the I-th of N shares, 0-based; 'auto' asks torchrun or the Slurm array.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Label here, or on a Ray cluster.",
)
@click.option("--ray-address", metavar="ADDR", help="The Ray cluster.  [default: one of this machine alone]")
@click.option("--ray-workers", type=click.IntRange(1), help="Parts at once.  [default: as many as fit]")
@click.option("--profile", "wants_profile", is_flag=True, help="Print where the time went.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Label three batches, print what the build will take, and make no store.",
)
@click.option("--log", "log_file", type=_FILE, help="Append a log to this file.")
@click.pass_context
def build(ctx: click.Context, /, *, log_file: Path | None, wants_profile: bool, **options: Any) -> None:
    """Label images with a teacher and write a store.

    A build that was stopped, by whatever, goes on when the same command is run again. Exit status 1
    means that it is finished and some images have no label; of a dry run, that the disk is too small.
    """
    from relabel_store.generate.build import build as build_store

    if log_file is not None:
        require_outside("--log", log_file, options["out"])
        ctx.call_on_close(_log_to(log_file))
    # For --teacher module:factory, as `python -m` finds modules in the folder that it is started in.
    sys.path.insert(0, str(Path.cwd()))
    try:
        with show_progress(is_quiet=bool(ctx.obj)) as observer:
            report = build_store(**options, observer=observer)
    except BaseException as error:
        _log_end(f"ended: {error or type(error).__name__}", logging.ERROR)
        raise
    text = build_text.forecast(report) if options["dry_run"] else build_text.build_report(report)
    _log_end(text, logging.INFO)
    click.echo(text)
    if wants_profile:
        click.echo(build_text.profile(report.profile))
    is_too_large = report.forecast is not None and not report.forecast.is_space_enough
    ctx.exit(1 if report.bad_images or report.failed_parts or is_too_large else 0)


def _log_end(text: str, level: int) -> None:
    """Write how the build ended to the log file; the terminal hears of it otherwise."""
    for handler in logging.getLogger("relabel_store").handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(logging.LogRecord("relabel_store.build", level, __file__, 0, text, None, None))


def _log_to(path: Path) -> Callable[[], None]:
    """Append the log to a file; return what ends that."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("relabel_store")
    logger.addHandler(handler)

    def end() -> None:
        logger.removeHandler(handler)
        handler.close()

    return end

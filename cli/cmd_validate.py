"""``relabel-store validate``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options, validation_text
from .printable import printable

if TYPE_CHECKING:
    from relabel_store.images.source import ImageSource
    from relabel_store.validate.report import Report
    from relabel_store.validate.stage import Stage, ValidationObserver


@click.command()
@options.store_argument
@click.option(
    "--level",
    type=click.Choice(["structure", "content"]),
    help="Look at one level of the store only.  [default: both]",
)
@click.option(
    "--images",
    metavar="SOURCE",
    help="Compare the images that were labelled: each is read once. A folder, tar, Parquet, shards, a list, or a URL.",
)
@click.option(
    "--recompute",
    type=click.IntRange(1),
    metavar="N",
    help="Label N of the images again with the recorded teacher, and compare.",
)
@click.option(
    "--teacher", metavar="NAME", help="The teacher, where the store cannot name it: module:factory."
)
@click.option(
    "--weights", type=click.Path(path_type=Path), help="The file that the teacher's weights came from."
)
@click.option(
    "--num-classes",
    type=click.IntRange(1),
    help="Of labels of another form: how many classes the teacher has.",
)
@click.option("--strict", is_flag=True, help="Count warnings as errors.")
@options.json_option
@click.pass_context
def validate(
    ctx: click.Context,
    *,
    store: Path | str,
    level: str | None,
    images: str | None,
    recompute: int | None,
    teacher: str | None,
    weights: Path | None,
    num_classes: int | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Check STORE against the format: whether it is whole, and its labels can be what they claim.

    Level structure takes seconds: manifest, names and sizes of files, journal, and sample table. Level content reads
    every byte once and looks at every label, and whether all of them together make sense: two to three times as long as
    decoding them, on all cores. --images reads every image once: the same files, sizes and class folders as recorded;
    and holds the label maps of 200 against their photos. --recompute loads the teacher, and takes as long as a build
    of N images.

    Labels of another form that `convert` reads are validated too: whether all of them can be read, and make sense.

    Exit status 0 means valid; 1 that there are errors; 3 that there is no store that this release reads. A store that
    is still being built is checked as far as it is recorded, and is an error.
    """
    from .progress import show_validation

    if recompute is not None and images is None:
        raise click.UsageError("--recompute: labels are made of images; give --images too")
    if recompute is None and (teacher is not None or weights is not None):
        raise click.UsageError("--teacher, --weights: are for --recompute; give that too, or leave them out")
    with show_validation(is_quiet=bool(ctx.obj)) as observer:
        if _is_of_another_form(store):
            if level is not None or recompute is not None:
                raise click.UsageError(
                    "--level, --recompute: are for stores, and these are labels of another form"
                )
            report = _validate_labels(store, images, num_classes, observer)
        elif num_classes is not None:
            raise click.UsageError("--num-classes: is for labels of another form; a store says it itself")
        else:
            stages = [] if images is None else _stages_of_images(images, recompute, teacher, weights)
            report = _validate_store(store, level, stages, observer)
    click.echo(
        json.dumps(report.to_json(), indent=2) if as_json else printable(validation_text.render(report))
    )
    ctx.exit(1 if report.has_errors(strict=strict) else 0)


def _is_of_another_form(location: Path | str) -> bool:
    """Tell whether labels lie somewhere that are no store, not even a damaged one, and that `convert` reads."""
    from relabel_store.errors import RelabelStoreError, StoreNotFoundError
    from relabel_store.store.location import open_files
    from relabel_store.validate.evidence import Evidence

    if not isinstance(location, Path):
        return False
    try:
        Evidence(open_files(location.absolute()))
    except StoreNotFoundError:
        from relabel_store.convert.formats import recognised_form

        return recognised_form(location) is not None
    except RelabelStoreError:
        return False
    return False


def _validate_labels(
    location: Path | str, images: str | None, num_classes: int | None, observer: ValidationObserver
) -> Report:
    from relabel_store.convert.formats import open_source
    from relabel_store.convert.source import SourceOptions
    from relabel_store.validate.labels import validate_labels

    _, labels = open_source(location, None, SourceOptions(images=images, num_classes=num_classes))
    return validate_labels(labels, str(location), observer=observer)


def _validate_store(
    location: Path | str, level: str | None, stages: list[Stage], observer: ValidationObserver
) -> Report:
    from relabel_store.validate.run import validate_store

    return validate_store(location, level=level, stages=stages, observer=observer)


def _stages_of_images(
    location: str, recompute: int | None, teacher: str | None, weights: Path | None
) -> list[Stage]:
    """Return the levels that need images."""
    from relabel_store.images.recognise import open_images
    from relabel_store.validate.images import ImagesStage
    from relabel_store.validate.photos import PhotoSenseStage

    images = open_images(location)
    stages: list[Stage] = [ImagesStage(images), PhotoSenseStage(images)]
    if recompute is not None:
        stages.append(_teacher_stage(images, recompute, teacher, weights))
    return stages


def _teacher_stage(images: ImageSource, samples: int, teacher: str | None, weights: Path | None) -> Stage:
    from relabel_store.generate.relabel import RecordedTeacher
    from relabel_store.validate.teacher import TeacherStage

    # For --teacher module:factory, as `python -m` finds modules in the folder that it is started in.
    sys.path.insert(0, str(Path.cwd()))
    return TeacherStage(images, RecordedTeacher(teacher=teacher, weights=weights), samples)

"""Rules of images: what must hold of those that were labelled, beside the store that has their labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from relabel_store.validate.finding import Place, Problem, Severity
from relabel_store.validate.rule import Level, check

_RELABEL = "its label is that of another image: put the file back, or build its part again"


@dataclass(frozen=True)
class Sample:
    """What a store recorded of an image; None where nothing."""

    row: int
    path: str
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    class_name: str | None = None

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return f"image {self.path!r}"


@dataclass(frozen=True)
class Seen:
    """What an image file turned out to be.

    Parameters
    ----------
    size
        Width and height in pixels by its header; None where it has none that can be read.
    """

    sha256: str
    size: tuple[int, int] | None


@check("RS701", level=Level.IMAGES)
def check_image_there(sample: Sample, found: str, count: int = 1) -> Iterator[Problem]:
    """Every labelled sample has its image, and the image can be read.

    Parameters
    ----------
    found
        What is there instead.
    count
        How many samples this one stands for.
    """
    yield Problem(
        Place(row=sample.row),
        f"{sample.name} {found}",
        "the image that was labelled",
        "give the folder, tar or files that were labelled, or put it back",
        count,
    )


@check("RS702", level=Level.IMAGES)
def check_image_digest(sample: Sample, image: Seen) -> Iterator[Problem]:
    """Every labelled image is, byte for byte, the one that was labelled."""
    if sample.sha256 is not None and image.sha256 != sample.sha256:
        yield Problem(
            Place(row=sample.row),
            f"{sample.name} has SHA-256 {image.sha256[:12]}…",
            f"{sample.sha256[:12]}… as recorded",
            _RELABEL,
        )


@check("RS703", level=Level.IMAGES)
def check_image_size(sample: Sample, image: Seen) -> Iterator[Problem]:
    """Every labelled image has the width and height that the sample table names."""
    if image.size is None or sample.width is None or sample.height is None:
        return
    if image.size != (sample.width, sample.height):
        yield Problem(
            Place(row=sample.row),
            f"{sample.name} has {image.size[0]} x {image.size[1]} pixels",
            f"{sample.width} x {sample.height} as recorded",
            "one of them is wrong, and crop boxes are cut by it: compare the file with the one that was labelled",
        )


@check("RS704", level=Level.IMAGES, severity=Severity.WARNING)
def check_class_folder(sample: Sample, found: str | None, count: int = 1) -> Iterator[Problem]:
    """Every image lies in the class folder that the sample table names."""
    yield Problem(
        Place(row=sample.row, field="class_name"),
        f"{sample.name} lies in {found!r}" if found is not None else f"{sample.name} lies in no class folder",
        f"{sample.class_name!r} as recorded",
        "hard labels of the folder and of the store differ: find out which of them was sorted anew",
        count,
    )


@check("RS705", level=Level.IMAGES, severity=Severity.WARNING)
def check_images_labelled(name: str, count: int) -> Iterator[Problem]:
    """Every image has a label, unless it was recorded as bad.

    Parameters
    ----------
    name
        The path of the first of `count` images that have none.
    """
    yield Problem(
        Place(),
        f"image {name!r} has no label" + (f", as {count - 1:,} others" if count > 1 else ""),
        "none that the store does not know",
        "training drops them or stops: label them too, or leave them out",
        count,
    )


@check("RS706", level=Level.IMAGES, severity=Severity.NOTE)
def check_bad_image(sample: Sample, image: Seen) -> Iterator[Problem]:
    """An image that was recorded as bad is still the same file."""
    if sample.sha256 is not None and image.sha256 != sample.sha256:
        yield Problem(
            Place(row=sample.row),
            f"{sample.name} has been replaced since",
            "the file that could not be decoded",
            "build again with --on-bad-image retry to label it",
        )

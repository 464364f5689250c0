"""Rules of sense: what labels of real images by a real teacher are like. Evidence, where other rules have proof."""

from __future__ import annotations

from collections.abc import Iterator

from relabel_store.labels.class_order import LOW_AGREEMENT, Candidate, ClassOrder
from relabel_store.labels.coverage import CoverageEvidence
from relabel_store.labels.orientation import DECISIVE_Z, OrientationEvidence, Symmetry
from relabel_store.manifest import Resize
from relabel_store.validate.finding import Place, Problem, Severity
from relabel_store.validate.rule import Level, check

_LABELLER = "find out how the labels were made before they are trained on"


@check("RS801", level=Level.SENSE)
def check_class_order(place: Place, order: ClassOrder, found: Candidate) -> Iterator[Problem]:
    """No other order of the classes explains the labels where the recorded one does not."""
    yield Problem(
        place,
        f"{found.phrase}: it explains {found.share:.0%} of {found.samples:,} samples (z = {found.z:.0f})",
        f"the recorded order, which explains {order.share:.1%}",
        "give the teacher's classes in its own order (--class-names), and convert or build again",
    )


@check("RS802", level=Level.SENSE, severity=Severity.WARNING)
def check_agreement(place: Place, order: ClassOrder) -> Iterator[Problem]:
    """The pooled label of an image is mostly the class of its folder."""
    yield Problem(
        place,
        f"so for {order.agreeing:,} of {order.samples:,} samples ({order.share:.1%}), which no known order of the "
        "classes explains",
        f"{LOW_AGREEMENT:.0%} or more",
        "the classes may be in an order of their own, or the labels those of other images; --images and --recompute "
        "tell more",
    )


@check("RS803", level=Level.SENSE, severity=Severity.WARNING)
def check_distinct_rows(row: int, count: int, rows: int) -> Iterator[Problem]:
    """Hardly any two rows have the same best class with the same score in every cell."""
    yield Problem(
        Place(row=row),
        f"{count:,} of {rows:,} labelled rows repeat an earlier one ({count / rows:.1%})",
        "1 % or fewer",
        "images may be there twice, or labels have been copied from one row to another",
        count,
    )


@check("RS804", level=Level.SENSE, severity=Severity.WARNING)
def check_distinct_parts(file: str, part: int, earlier: int) -> Iterator[Problem]:
    """No two parts hold the same labels."""
    yield Problem(
        Place(file=file),
        f"the labels of part {part} are those of part {earlier}, row by row",
        "labels of its own images",
        "one of the two was written in the place of the other: build it again",
    )


@check("RS805", level=Level.SENSE, severity=Severity.WARNING)
def check_one_map(place: Place, rows: int) -> Iterator[Problem]:
    """Not every image has the same label map."""
    yield Problem(place, f"all {rows:,} labelled rows have one", "a map of each image", _LABELLER)


@check("RS806", level=Level.SENSE, severity=Severity.WARNING)
def check_maps_vary(place: Place, constant: int, rows: int) -> Iterator[Problem]:
    """The cells of a map differ: they are not one label of the whole image, spread over the grid."""
    yield Problem(
        place,
        f"in {constant:,} of {rows:,} rows looked at all cells are the same",
        "maps that say what is where",
        "pooling a crop from these gives the label of the whole image: the teacher may have a class token, or a map of "
        "one cell",
        constant,
    )


@check("RS807", level=Level.SENSE, severity=Severity.WARNING)
def check_logits(place: Place, found: str, low: float, high: float) -> Iterator[Problem]:
    """Values are logits, and not what softmax made of them.

    Parameters
    ----------
    found
        What they look like.
    low, high
        The range they lie in.
    """
    yield Problem(
        place,
        f"the values look like {found}: they lie in [{low:g}, {high:g}]",
        "scores before softmax",
        "softmax would be taken twice: take the logarithm of probabilities, and store what is absent as rest",
    )


@check("RS808", level=Level.SENSE, severity=Severity.WARNING)
def check_winners(place: Place, winner: str, rows: int) -> Iterator[Problem]:
    """More than one class is the best of some cell."""
    yield Problem(
        place,
        f"{winner} is the best in every cell of all {rows:,} rows looked at",
        "classes that differ from image to image",
        _LABELLER,
    )


@check("RS811", level=Level.SENSE, severity=Severity.WARNING)
def check_orientation(place: Place, evidence: OrientationEvidence, way: Symmetry) -> Iterator[Problem]:
    """Label maps lie on their photos as they are, and neither transposed nor mirrored."""
    z = evidence.z(way, Symmetry.AS_IS)
    found = f"{evidence.wins(way, Symmetry.AS_IS)} of {evidence.photos} photos (z = {z:.1f})"
    yield Problem(
        place,
        f"{way.phrase}, the maps fit {found} better",
        "row 0 at the top and column 0 at the left",
        "labels of crops are those of other regions: turn the maps where they were made, and convert them again",
    )


@check("RS812", level=Level.SENSE, severity=Severity.WARNING)
def check_coverage(place: Place, evidence: CoverageEvidence, recorded: Resize) -> Iterator[Problem]:
    """Label maps cover the part of their photos that the manifest names."""
    yield Problem(
        place,
        evidence.describe(),
        f"what geometry.resize says, {recorded.value!r}",
        "boxes of crops are laid over another part of the photo than the maps cover: correct geometry.resize where the "
        "labels come from, and convert them again",
    )


@check("RS813", level=Level.SENSE, severity=Severity.WARNING)
def check_own_photos(place: Place, z: float, photos: int) -> Iterator[Problem]:
    """Label maps fit their own photos better than others."""
    rather = "; they fit that of the sample before, as if all were shifted by one" if z < -DECISIVE_Z else ""
    yield Problem(
        place,
        f"they do not (z = {z:.1f}, {photos} photos){rather}",
        "changes of the label where the photo changes (z of 4 or more)",
        "the labels may be those of other images, as where lists were joined by position; --recompute tells",
    )

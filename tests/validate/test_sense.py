"""What labels alone, and photos beside them, say of whether they can be what they claim."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from relabel_store.images.recognise import open_images
from relabel_store.labels.maps import LabelMaps
from relabel_store.labels.orientation import Symmetry
from relabel_store.labels.topk import sort_ranks
from relabel_store.manifest import AbsentRule, Classes, Resize
from relabel_store.sample_ids import digest_of_ids
from relabel_store.store.samples import planned_samples
from relabel_store.store.writer import StoreWriter
from relabel_store.testing import make_manifest, make_part
from relabel_store.validate.catalog import all_checks
from relabel_store.validate.finding import Severity
from relabel_store.validate.photos import PhotoSenseStage
from relabel_store.validate.report import Report
from relabel_store.validate.rule import Level
from relabel_store.validate.run import validate_store

N, CLASSES, SIDE = 120, 12, 6
NAMES = [f"{chr(ord('a') + index * 5 % CLASSES)}-class" for index in range(CLASSES)]


def make_maps(rng: np.random.Generator, n: int = N) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return folders, and maps of objects of the folder's class, on a ground of another, in a strip of the photo."""
    folder = np.sort(rng.integers(0, CLASSES, n))
    best = np.repeat(rng.integers(0, CLASSES, n), SIDE * SIDE).reshape(n, SIDE, SIDE)
    for scene, of in zip(best, folder, strict=True):
        top, left = rng.integers(0, 2, 2)
        scene[top : top + rng.integers(4, 6), left : left + 5] = of
        scene[rng.integers(0, SIDE), rng.integers(0, SIDE)] = rng.integers(0, CLASSES)
    indices = np.stack([best, (best + 3) % CLASSES], axis=1)
    values = np.stack([rng.uniform(5, 12, best.shape), rng.uniform(1, 4, best.shape)], axis=1)
    return folder, indices, values


def write_store(
    path: Path,
    folder: np.ndarray,
    indices: np.ndarray,
    values: np.ndarray,
    *,
    names: list[str] | None = None,
    resize: Resize = Resize.SQUASH,
    rest: np.ndarray | None = None,
) -> None:
    """Write maps as a store whose classes are called by the names, in this order."""
    n = len(folder)
    absent = AbsentRule.ZERO if rest is None else AbsentRule.REST
    manifest = make_manifest(
        n, grid=indices.shape[2:], k=2, num_classes=CLASSES, shard_rows=32, chunk_rows=16, absent=absent
    )
    ids = [f"{NAMES[of]}/{row:04d}" for row, of in enumerate(folder)]
    manifest = replace(
        manifest,
        build=manifest.build if resize is Resize.SQUASH else None,  # a build never crops
        classes=Classes.of(None, NAMES if names is None else names, "test"),
        geometry=replace(manifest.geometry, resize=resize),
        images=replace(manifest.images, digest=digest_of_ids(ids), kind="list", order="source"),
    )
    samples = planned_samples(
        ids, [f"{one}.png" for one in ids], [NAMES[of] for of in folder], manifest.classes.index_of_folder()
    )
    writer = StoreWriter.begin(path, manifest, samples)
    stored = sort_ranks(indices.astype(np.uint16), (np.round(values * 8) / 8).astype(np.float16))
    maps = LabelMaps(ids, stored[0], stored[1].astype(np.float16), rest)
    for part in range(manifest.num_parts):
        writer.write_part(part, make_part(manifest, maps, part))
    writer.complete()


def shuffled(folder: np.ndarray, indices: np.ndarray, values: np.ndarray) -> dict[str, np.ndarray]:
    order = np.random.default_rng(5).permutation(len(folder))
    return {"indices": indices[order], "values": values[order]}


def sorted_list(indices: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(np.array(NAMES)))[indices]


def same_rows(indices: np.ndarray) -> np.ndarray:
    copied = indices.copy()
    copied[1:6] = copied[0]
    return copied


def same_parts(indices: np.ndarray) -> np.ndarray:
    copied = indices.copy()
    copied[64:96] = copied[:32]
    return copied


# For each check of labels what spoils maps that are fine.
Spoil = Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, object]]
EXAMPLES: dict[str, Spoil] = {
    "RS801": lambda f, i, v: {"indices": (i + 1) % CLASSES},
    "RS802": shuffled,
    "RS803": lambda f, i, v: {"indices": same_rows(i), "values": same_rows(v)},
    "RS804": lambda f, i, v: {"indices": same_parts(i), "values": same_parts(v)},
    "RS805": lambda f, i, v: {"indices": np.repeat(i[:1], N, axis=0), "values": np.repeat(v[:1], N, axis=0)},
    "RS806": lambda f, i, v: {
        "indices": np.stack([f, (f + 1) % CLASSES], 1)[:, :, None, None] + np.zeros((SIDE, SIDE), int),
        "values": np.arange(2 * N)[::-1].reshape(2, N).T[:, :, None, None] / 8 + np.zeros((SIDE, SIDE)),
    },
    "RS807": lambda f, i, v: {"values": v / 12},
    "RS808": lambda f, i, v: {"indices": np.stack([np.full(i[:, 0].shape, 3), np.full(i[:, 0].shape, 4)], 1)},
}
# What cannot but be found beside it: one class or map for all agrees with few folders.
BESIDES = {"RS805": {"RS802"}, "RS808": {"RS802"}}


def test_every_check_of_sense_has_an_example() -> None:
    of_sense = {name for name, check in all_checks().items() if check.rule.level is Level.SENSE}
    assert {*EXAMPLES, "RS811", "RS812", "RS813"} == of_sense


def test_nothing_is_found_in_labels_that_make_sense(rng: np.random.Generator, tmp_path: Path) -> None:
    write_store(tmp_path / "s", *make_maps(rng))
    report = validate_store(tmp_path / "s")
    assert (report.ids, report.skipped) == ((), ())
    assert report.levels == (Level.STRUCTURE, Level.CONTENT, Level.SENSE)


@pytest.mark.parametrize("rule", EXAMPLES)
def test_labels_that_make_no_sense_are_found_out(rng: np.random.Generator, tmp_path: Path, rule: str) -> None:
    folder, indices, values = make_maps(rng)
    write_store(
        tmp_path / "s",
        **{"folder": folder, "indices": indices, "values": values, **EXAMPLES[rule](folder, indices, values)},
    )  # type: ignore[arg-type]
    report = validate_store(tmp_path / "s", level="content")
    assert set(report.ids) == {rule} | BESIDES.get(rule, set())
    assert report.has_errors() == (rule == "RS801")
    assert all_checks()[rule].rule.severity is (Severity.ERROR if rule == "RS801" else Severity.WARNING)


def test_another_class_list_and_a_permutation_are_told_apart(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    folder, indices, values = make_maps(rng, 240)
    write_store(tmp_path / "names", folder, sorted_list(indices), values)
    write_store(tmp_path / "other", folder, rng.permutation(CLASSES)[indices], values)
    (names,) = validate_store(tmp_path / "names", level="content").findings
    (other,) = validate_store(tmp_path / "other", level="content").findings
    assert "the classes are sorted by their names: it explains" in names.message
    assert "the classes are permuted" in other.message
    assert "of 240 samples" in names.message


def test_logarithms_of_probabilities_are_told_from_logits_of_sigmoid_heads(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    folder, indices, values = make_maps(rng)
    logs = -values[:, ::-1] / 2
    write_store(tmp_path / "logs", folder, indices, logs, rest=np.full(values[:, 0].shape, -4, np.float16))
    write_store(
        tmp_path / "sigmoid", folder, indices, logs / 50, rest=np.full(values[:, 0].shape, -4, np.float16)
    )
    report = validate_store(tmp_path / "logs", level="content")
    assert report.ids == ("RS807",)
    assert "look like logarithms of probabilities: they lie in [" in report.findings[0].message
    assert validate_store(tmp_path / "sigmoid", level="content").ids == ()


# Photos


def write_photos(root: Path, folder: np.ndarray, best: np.ndarray, *, is_cropped: bool = False) -> None:
    """Write photos twice as wide as high in whose cells each class has a colour of its own."""
    rng = np.random.default_rng(1)
    palette = rng.integers(0, 256, (CLASSES, 3))
    for row, of in enumerate(folder):
        pixels = palette[best[row]].repeat(8, axis=0).repeat(8 if is_cropped else 16, axis=1)
        if is_cropped:
            sides = palette[rng.integers(0, CLASSES, (SIDE, 3))].repeat(8, axis=0).repeat(8, axis=1)
            pixels = np.concatenate([sides, pixels, sides], axis=1)
        noisy = np.clip(pixels + rng.normal(0, 20, pixels.shape), 0, 255).astype(np.uint8)
        path = root / NAMES[of] / f"{row:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = io.BytesIO()
        Image.fromarray(noisy).save(stream, "PNG")
        path.write_bytes(stream.getvalue())


def look(tmp_path: Path) -> Report:
    return validate_store(
        tmp_path / "s", level="structure", stages=[PhotoSenseStage(open_images(tmp_path / "photos"))]
    )


@pytest.mark.parametrize("is_cropped", [False, True])
def test_maps_that_lie_on_their_photos_as_recorded_are_fine(
    rng: np.random.Generator, tmp_path: Path, is_cropped: bool
) -> None:
    folder, indices, values = make_maps(rng)
    write_photos(tmp_path / "photos", folder, indices[:, 0], is_cropped=is_cropped)
    write_store(
        tmp_path / "s", folder, indices, values, resize=Resize.CENTER_CROP if is_cropped else Resize.SQUASH
    )
    report = look(tmp_path)
    assert (report.ids, report.skipped) == ((), ())
    assert report.levels == (Level.STRUCTURE, Level.SENSE)


@pytest.mark.parametrize("way", [Symmetry.TRANSPOSED, Symmetry.MIRRORED])
def test_maps_that_lie_otherwise_are_found_out(
    rng: np.random.Generator, tmp_path: Path, way: Symmetry
) -> None:
    folder, indices, values = make_maps(rng)
    write_photos(tmp_path / "photos", folder, indices[:, 0])
    write_store(tmp_path / "s", folder, way.apply(indices), way.apply(values))
    report = look(tmp_path)
    assert report.ids == ("RS811",)
    assert report.findings[0].message.startswith("'zarr.json', field 'geometry': " + way.phrase)


@pytest.mark.parametrize(
    ("recorded", "is_cropped"), [(Resize.SQUASH, True), (Resize.CENTER_CROP, False), (Resize.UNKNOWN, True)]
)
def test_maps_of_another_part_of_their_photos_are_found_out(
    rng: np.random.Generator, tmp_path: Path, recorded: Resize, is_cropped: bool
) -> None:
    folder, indices, values = make_maps(rng)
    write_photos(tmp_path / "photos", folder, indices[:, 0], is_cropped=is_cropped)
    write_store(tmp_path / "s", folder, indices, values, resize=recorded)
    report = look(tmp_path)
    assert report.ids == ("RS812",)
    assert f"geometry.resize says, {recorded.value!r}" in report.findings[0].message


def test_maps_of_other_photos_are_found_out(rng: np.random.Generator, tmp_path: Path) -> None:
    folder, indices, values = make_maps(rng)
    write_photos(tmp_path / "photos", folder, indices[:, 0])
    other = np.random.default_rng(3).permutation(N)
    write_store(tmp_path / "s", folder, indices[other], values[other])
    report = look(tmp_path)
    assert report.ids == ("RS813",)
    assert report.skipped[0].why == "undecided on 120 photos"


def test_maps_of_few_cells_are_not_said_to_be_of_other_photos(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    folder, indices, values = make_maps(rng)
    write_photos(tmp_path / "photos", folder, indices[:, 0])
    other = np.random.default_rng(3).permutation(N)
    write_store(tmp_path / "s", folder, indices[other][..., :3, :3], values[other][..., :3, :3])
    report = look(tmp_path)
    assert "RS813" not in report.ids
    assert ("maps against other photos", "3x3 cells are too few to tell") in [
        (skipped.what, skipped.why) for skipped in report.skipped
    ]


def test_few_photos_leave_it_undecided_and_unreadable_ones_unchecked(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    folder, indices, values = make_maps(rng, 6)
    write_photos(tmp_path / "photos", folder, indices[:, 0])
    write_store(tmp_path / "s", folder, indices, values)
    report = look(tmp_path)
    assert report.ids == ()
    assert [skipped.what for skipped in report.skipped] == [
        "orientation of the maps",
        "part of the photos that the maps cover",
    ]
    for path in (tmp_path / "photos").rglob("*.png"):
        path.write_bytes(b"no photo")
    assert [skipped.why for skipped in look(tmp_path).skipped] == ["no photo can be decoded"]


def test_rows_that_differ_in_one_cell_are_not_taken_for_the_same(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    folder, indices, values = make_maps(rng)
    alike = np.repeat(values[:1], N, axis=0)
    same = np.repeat(indices[:1], N, axis=0)
    for row in range(N):  # the lowest bit that a step leaves, of one cell or another
        alike[row, 0, row // SIDE % SIDE, row % SIDE] += (1 + row // SIDE**2) / 8
    write_store(tmp_path / "s", folder, same, alike)
    assert not {"RS803", "RS805"} & set(validate_store(tmp_path / "s", level="content").ids)


def test_maps_that_are_shifted_by_one_sample_are_said_to_be(rng: np.random.Generator, tmp_path: Path) -> None:
    folder, indices, values = make_maps(rng)
    write_photos(tmp_path / "photos", folder, indices[:, 0])
    write_store(tmp_path / "s", folder, np.roll(indices, 1, axis=0), np.roll(values, 1, axis=0))
    report = look(tmp_path)
    assert report.ids == ("RS813",)
    assert "as if all were shifted by one" in report.findings[0].message

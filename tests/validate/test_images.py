"""The level ``images``: made-up images, a store that recorded them, and each way in which they can differ."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from relabel_store.images.recognise import open_images
from relabel_store.store.samples import FACTS_SCHEMA
from relabel_store.store.writer import StoreWriter
from relabel_store.testing import make_label_maps, make_manifest, make_part, make_samples
from relabel_store.validate.catalog import all_checks
from relabel_store.validate.images import ImagesStage
from relabel_store.validate.report import Report
from relabel_store.validate.rule import Level
from relabel_store.validate.run import validate_store

BAD = 2
PHOTO = "cat/photo 0003.png"


def png(seed: int, size: tuple[int, int] = (6, 4)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write_photos(root: Path, n: int = 8) -> list[str]:
    """Write photos by the ids of `make_samples`, one of which is none, and return the ids."""
    ids = make_samples(make_manifest(n))["sample_id"].to_pylist()
    for row, sample_id in enumerate(ids):
        path = root / f"{sample_id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no image" if row == BAD else png(row))
    return list(ids)


def write_store(
    path: Path, photos: Path, ids: list[str], *, with_facts: bool = True, encoding: str = "zarr"
) -> None:
    """Write a store that recorded those photos."""
    manifest = make_manifest(len(ids), encoding=encoding)
    samples = make_samples(manifest, ids)
    samples = samples.set_column(2, samples.schema.field("path"), pa.array([f"{name}.png" for name in ids]))
    maps = make_label_maps(np.random.default_rng(0), manifest)
    writer = StoreWriter.begin(path, manifest, samples)
    for part in range(manifest.num_parts):
        made = make_part(manifest, maps, part, {BAD: "no image"})
        facts = made.facts.to_pylist()
        for row, line in zip(manifest.rows_of_part(part), facts, strict=True):
            data = (photos / f"{ids[row]}.png").read_bytes()
            is_good = row != BAD
            line["sha256"] = hashlib.sha256(data).hexdigest() if with_facts else None
            line["width"], line["height"] = (6, 4) if is_good and with_facts else (None, None)
        writer.write_part(part, replace(made, facts=pa.Table.from_pylist(facts, schema=FACTS_SCHEMA)))
    writer.complete()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_store(tmp_path / "s", tmp_path / "photos", write_photos(tmp_path / "photos"))
    return tmp_path / "photos"


def validate(photos: Path, store: str = "s") -> Report:
    return validate_store(photos.parent / store, level="structure", stages=[ImagesStage(open_images(photos))])


def remove(photos: Path) -> None:
    (photos / PHOTO).unlink()


def change(photos: Path) -> None:
    (photos / PHOTO).write_bytes(png(99))


def add(photos: Path) -> None:
    (photos / "cat" / "new.png").write_bytes(png(99))


def mend(photos: Path) -> None:
    ids = make_samples(make_manifest())["sample_id"].to_pylist()
    (photos / f"{ids[BAD]}.png").write_bytes(png(99))


def record_another_size(photos: Path) -> None:
    ids = [path.relative_to(photos).with_suffix("").as_posix() for path in sorted(photos.rglob("*.png"))]
    for path in photos.rglob("*.png"):
        if path.stem.endswith("3"):
            path.write_bytes(png(7, size=(8, 4)))
    write_store(photos.parent / "other", photos, ids)
    (photos.parent / "s").rename(photos.parent / "before")
    (photos.parent / "other").rename(photos.parent / "s")


# Each check, what to do to images that fit, and the samples that it tells of.
EXAMPLES: dict[str, tuple[Callable[[Path], None], int]] = {
    "RS701": (remove, 1),
    "RS702": (change, 1),
    "RS703": (record_another_size, 1),
    "RS705": (add, 1),
    "RS706": (mend, 1),
}


def test_every_check_of_images_has_an_example() -> None:
    of_images = {name for name, check in all_checks().items() if check.rule.level is Level.IMAGES}
    assert {*EXAMPLES, "RS704"} == of_images  # that one: see the list in another order


def test_nothing_is_found_in_the_images_that_were_labelled(photos: Path) -> None:
    report = validate(photos)
    assert (report.ids, report.skipped) == ((), ())
    assert report.levels == (Level.STRUCTURE, Level.IMAGES)


@pytest.mark.parametrize("rule", EXAMPLES)
def test_images_that_differ_are_found_out_for_that_and_nothing_else(photos: Path, rule: str) -> None:
    spoil, count = EXAMPLES[rule]
    spoil(photos)
    report = validate(photos)
    assert report.ids == (rule,)
    assert report.groups[0].count == count


def test_an_image_in_another_class_folder_than_recorded_is_a_warning(photos: Path) -> None:
    lines = [
        f"{path.relative_to(photos).as_posix()},{path.parent.name}" for path in sorted(photos.rglob("*.png"))
    ]
    lines[0] = lines[0].replace(",cat", ",dog")
    table = photos / "photos.csv"
    table.write_text("\n".join(["path,class_name", *lines]), encoding="utf-8")
    report = validate_store(photos.parent / "s", level="structure", stages=[ImagesStage(open_images(table))])
    assert report.ids == ("RS704",)
    assert "lies in 'dog', expected 'cat' as recorded" in report.findings[0].message
    assert not report.has_errors()


def test_a_tar_of_the_images_and_a_store_in_parquet_are_compared_alike(photos: Path) -> None:
    ids = [path.relative_to(photos).with_suffix("").as_posix() for path in sorted(photos.rglob("*.png"))]
    write_store(photos.parent / "p", photos, ids, encoding="parquet")
    change(photos)
    with tarfile.open(photos.parent / "photos.tar", "w") as tar:
        for path in sorted(photos.rglob("*.png")):
            tar.add(path, path.relative_to(photos).as_posix())
    for store in ("s", "p"):
        assert validate(photos.parent / "photos.tar", store).ids == ("RS702",)


def test_images_in_parquet_files_are_read_by_threads_that_do_not_get_in_each_others_way(
    tmp_path: Path, photos: Path
) -> None:
    ids = write_photos(tmp_path / "many", 300)
    write_store(tmp_path / "m", tmp_path / "many", ids)
    data = [(tmp_path / "many" / f"{name}.png").read_bytes() for name in ids]
    table = pa.table({"sample_id": ids, "image": pa.array(data, pa.binary())})
    pq.write_table(table, tmp_path / "many.parquet", row_group_size=50)
    assert validate(tmp_path / "many.parquet", "m").ids == ("RS704",)  # no class folders in there


def test_what_was_not_recorded_is_said_to_be_uncompared(photos: Path) -> None:
    ids = [path.relative_to(photos).with_suffix("").as_posix() for path in sorted(photos.rglob("*.png"))]
    write_store(photos.parent / "converted", photos, ids, with_facts=False)
    change(photos)
    report = validate_store(
        photos.parent / "converted", level="content", stages=[ImagesStage(open_images(photos))]
    )
    assert report.ids == ()
    assert {skipped.what for skipped in report.skipped} == {"digests of images", "sizes of images"}
    assert "of 7 of 7 labelled samples" in report.skipped[0].why


def test_an_image_that_cannot_be_read_is_told_with_the_reason(photos: Path) -> None:
    source = open_images(photos)
    (photos / PHOTO).unlink()
    report = validate_store(photos.parent / "s", level="structure", stages=[ImagesStage(source)])
    assert report.ids == ("RS701",)
    assert "cannot be read (No such file or directory)" in report.findings[0].message

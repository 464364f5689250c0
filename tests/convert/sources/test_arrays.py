"""Both forms of arrays, from what a script wrote to the store that comes out."""

from __future__ import annotations

import csv
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from relabel_store.convert import formats
from relabel_store.convert.run import convert
from relabel_store.convert.source import SourceOptions
from relabel_store.convert.sources.array_files import open_npy
from relabel_store.convert.sources.arrays import ArraySource, GivenClasses
from relabel_store.convert.sources.given_samples import samples_of_ids
from relabel_store.errors import AbsentRuleError, JoinError, LabelSourceError
from relabel_store.labels.topk import is_sorted, top_k
from relabel_store.labels.values import ValueStep
from relabel_store.manifest import AbsentRule, Resize
from relabel_store.store.reader import open_store
from relabel_store.testing import file_digests

NUM_CLASSES = 7


def make_arrays(rng: np.random.Generator, n: int = 10, *, k: int = 3, shift: float = 5.0):
    """What a script of somebody's might save: ranks in no order, and dense scores to compare with."""
    scores = rng.normal(shift, 2, (n, NUM_CLASSES, 2, 3)).astype(np.float32)
    indices, values = top_k(scores, k)
    order = rng.permuted(np.broadcast_to(np.arange(k)[None, :, None, None], indices.shape), axis=1)
    wide = scores.astype(np.float64)
    most = wide.max(axis=1, keepdims=True)
    arrays = {
        "indices": np.take_along_axis(indices, order, 1).astype(np.int32),
        "values": np.take_along_axis(values, order, 1),
        "logsumexp": (most[:, 0] + np.log(np.exp(wide - most).sum(axis=1))).astype(np.float32),
        "sample_ids": np.array([f"{'cat' if row % 2 else 'dog'}/{row}" for row in range(n)]),
        "num_classes": np.array(NUM_CLASSES),
    }
    return scores, arrays


def save_npz(path: Path, arrays, *, is_compressed: bool = False) -> Path:
    (np.savez_compressed if is_compressed else np.savez)(path, **arrays)
    return path


def save_folder(path: Path, arrays) -> Path:
    path.mkdir()
    for name in ("indices", "values", "rest", "logsumexp"):
        if name in arrays:
            np.save(path / f"{name}.npy", arrays[name])
    with open(path / "samples.csv", "w", newline="") as file:
        csv.writer(file).writerows([["sample_id"], *([sample_id] for sample_id in arrays["sample_ids"])])
    return path


def assert_is_of(store, scores: np.ndarray, step: float, rows) -> None:
    """Check the labels of a store against dense scores, cell by cell."""
    maps = store.read_rows(list(rows))
    assert is_sorted(maps.indices, maps.values).all()
    for at, row in enumerate(rows):
        for cell in np.ndindex(*store.grid):
            best = sorted(range(NUM_CLASSES), key=lambda cls: -scores[row][cls][cell])[: store.k]
            found = {
                int(cls): float(value)
                for cls, value in zip(maps.indices[at][:, *cell], maps.values[at][:, *cell], strict=True)
            }
            assert set(found) == set(best)
            for cls, value in found.items():
                assert abs(value - scores[row][cls][cell]) <= step / 2


@pytest.mark.parametrize("is_compressed", [False, True], ids=["stored", "compressed"])
def test_a_npz_file_becomes_a_store(tmp_path, rng, is_compressed) -> None:
    scores, arrays = make_arrays(rng)
    path = save_npz(tmp_path / "mine.npz", arrays, is_compressed=is_compressed)
    report = convert(path, tmp_path / "a.zarr", workers=1)
    assert report.source_form == "npz"
    assert "--absent rest" in report.notes[0]
    store = open_store(tmp_path / "a.zarr")
    assert_is_of(store, scores, 0.125, range(10))
    assert store.samples["sample_id"].to_pylist() == arrays["sample_ids"].tolist()
    assert store.samples["class_name"].to_pylist()[:2] == ["dog", "cat"]
    manifest = store.manifest
    assert manifest.name == "mine"
    assert (manifest.teacher.name, manifest.geometry.resize) == ("unknown", Resize.UNKNOWN)
    assert manifest.classes.digest is None


def test_a_folder_of_npy_files_becomes_a_store(tmp_path, rng) -> None:
    scores, arrays = make_arrays(rng)
    path = save_folder(tmp_path / "mine", arrays)
    report = convert(path, tmp_path / "a.parquet", num_classes=NUM_CLASSES, value_step="exact", workers=1)
    assert report.source_form == "npy"
    assert_is_of(open_store(tmp_path / "a.parquet"), scores, 2**-6, range(10))


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(1, 5),
    k=st.integers(1, NUM_CLASSES),
    shift=st.sampled_from([-30.0, 5.0]),
    as_rest=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_rest_is_what_the_classes_not_kept_come_to(tmp_path_factory, n, k, shift, as_rest, seed) -> None:
    folder = tmp_path_factory.mktemp("rest")
    scores, arrays = make_arrays(np.random.default_rng(seed), n, k=k, shift=shift)
    left = scores.astype(np.float64)
    np.put_along_axis(left, arrays["indices"].astype(np.int64), -np.inf, axis=1)
    with np.errstate(divide="ignore"):
        expected = np.log(np.exp(left).sum(axis=1))
    is_left = np.isfinite(expected)
    tolerance = np.abs(expected[is_left]) * 2**-11 + 1e-3  # half a step of float16
    if as_rest:
        arrays["rest"] = expected.astype(np.float32)
        del arrays["logsumexp"]
    else:  # a step of float32 in the log-sum-exp of all is the larger the less of it is left
        whole = np.log(np.exp(scores.astype(np.float64)).sum(axis=1))[is_left]
        tolerance += np.exp(whole - expected[is_left]) * np.abs(whole) * 2**-23
    convert(save_npz(folder / "a.npz", arrays), folder / "a.zarr", absent="rest", workers=1)
    found = open_store(folder / "a.zarr").read_rows(list(range(n))).rest
    assert (np.abs(found[is_left] - expected[is_left]) <= tolerance).all()
    np.testing.assert_array_equal(np.isneginf(found), ~is_left)


def test_rows_that_are_damaged_have_no_label_and_say_why(tmp_path, rng) -> None:
    scores, arrays = make_arrays(rng)
    arrays["values"][2, 0, 0, 0] = np.nan
    arrays["indices"] = arrays["indices"].astype(np.float32)
    arrays["indices"][4, 1] = 0.5
    arrays["indices"][6, 0] = arrays["indices"][6, 1]
    arrays["logsumexp"][8] = -1
    report = convert(save_npz(tmp_path / "a.npz", arrays), tmp_path / "a.zarr", absent="rest", workers=1)
    reasons = dict(report.without_label)
    assert list(reasons) == ["dog/2", "dog/4", "dog/6", "dog/8"]
    for sample_id, reason in zip(
        reasons, ("value nan", "class index 0.5", "a class twice", "log-sum-exp"), strict=True
    ):
        assert reason in reasons[sample_id]
    assert_is_of(open_store(tmp_path / "a.zarr"), scores, 0.125, [0, 1, 3, 5, 7, 9])


def test_an_interrupted_conversion_goes_on(tmp_path, rng, monkeypatch) -> None:
    monkeypatch.setattr("relabel_store.spec.SHARD_ROWS", 256)
    _, arrays = make_arrays(rng, 600)
    path = save_npz(tmp_path / "a.npz", arrays, is_compressed=True)
    convert(path, tmp_path / "whole.zarr", workers=1)
    read_part = ArraySource.read_part
    monkeypatch.setattr(
        ArraySource, "read_part", lambda self, part: None if part == 2 else read_part(self, part)
    )
    with pytest.raises(AttributeError):
        convert(path, tmp_path / "a.zarr", workers=1)
    monkeypatch.setattr(ArraySource, "read_part", read_part)
    convert(path, tmp_path / "a.zarr", workers=1)
    assert file_digests(tmp_path / "a.zarr") == file_digests(tmp_path / "whole.zarr")
    assert open_store(tmp_path / "a.zarr").manifest.num_parts == 3


def test_a_source_can_be_sent_to_other_processes(tmp_path, rng) -> None:
    _, arrays = make_arrays(rng)
    path = save_npz(tmp_path / "a.npz", arrays, is_compressed=True)
    _, source = formats.open_source(path, None, SourceOptions())
    sent = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(sent.read_part(0).values, source.read_part(0).values)
    assert sent.manifest == source.manifest
    del sent  # what was unpacked is the first one's
    assert source.read_part(0).is_labelled.all()


def test_names_of_classes_in_the_file_are_the_teachers(tmp_path, rng) -> None:
    _, arrays = make_arrays(rng)
    del arrays["num_classes"]
    names = ["cat", "dog", *"abcde"]
    convert(
        save_npz(tmp_path / "a.npz", {**arrays, "class_names": np.array(names)}),
        tmp_path / "a.zarr",
        workers=1,
    )
    store = open_store(tmp_path / "a.zarr")
    assert store.manifest.classes.names == tuple(names)
    assert store.samples["class_index"].to_pylist()[:2] == [1, 0]


def refused(tmp_path: Path, arrays, message: str, error=LabelSourceError, **options) -> None:
    path = save_npz(tmp_path / "a.npz", arrays)
    with pytest.raises(error, match=message):
        formats.open_source(path, "npz", SourceOptions(**options))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_ids": None}, r"expected also 'sample_ids': .*order does not say which image"),
        ({"values": None, "sample_ids": None}, r"expected also 'values' and 'sample_ids'"),
        ({"num_classes": None}, r"how many classes.*--num-classes.*--class-names"),
        ({"num_classes": np.array(2)}, r"has k = 3 with 2 classes"),
        ({"num_classes": np.array(6.5)}, r"expected one whole number"),
        ({"num_classes": np.array(5)}, r"class index \d, expected below 5; .*--num-classes"),
        ({"class_names": np.array(["a", "b", "c"])}, r"3 or 7 classes"),
        ({"sample_ids": np.arange(9)}, r"9 sample ids for 10 label maps"),
        ({"sample_ids": np.array(["a"] * 10)}, r"'sample_ids': sample id 'a' in rows 0 and 1"),
        ({"sample_ids": np.full(10, b"\xff")}, r"expected UTF-8"),
        ({"sample_ids": np.full(10, 0.5)}, r"expected a list of texts"),
        (
            {"values": np.zeros((10, 3, 2), np.float32)},
            r"values have shape \(10, 3, 2\), expected \(10, 3, 2, 3\)",
        ),
        ({"values": np.zeros((10, 3, 2, 3), np.int8)}, r"values are of dtype int8, expected floats"),
        ({"logsumexp": np.zeros((10, 3, 2, 3), np.float32)}, r"logsumexp have shape"),
        ({"indices": np.zeros((10, 3, 2), np.int32)}, r"expected \(n, k, n_rows, n_cols\)"),
        ({"indices": np.zeros((0, 3, 2, 3), np.int32)}, r"none of them 0"),
        ({"values": np.full((10, 3, 2, 3), 0.3, np.float32)}, r"are probabilities, expected logits"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value),
)
def test_what_cannot_be_label_maps_is_refused(tmp_path, rng, changes, message: str) -> None:
    _, arrays = make_arrays(rng)
    refused(
        tmp_path, {name: array for name, array in {**arrays, **changes}.items() if array is not None}, message
    )


def test_negative_logits_need_an_absent_rule_by_name(tmp_path, rng) -> None:
    _, arrays = make_arrays(rng, shift=-5)
    refused(tmp_path, arrays, r"first 10 rows: \d+% are negative", AbsentRuleError)


def test_rest_that_nothing_says_is_refused(tmp_path, rng) -> None:
    _, arrays = make_arrays(rng)
    del arrays["logsumexp"]
    refused(tmp_path, arrays, r"add 'rest'.* or 'logsumexp'", absent=AbsentRule.REST)


def test_arrays_none_of_whose_rows_can_be_used_are_refused_as_a_whole(tmp_path, rng) -> None:
    arrays = make_arrays(rng)[1]
    for name in ("indices", "values"):  # ranks last
        arrays[name] = np.moveaxis(arrays[name], 1, -1)
    del arrays["logsumexp"]
    arrays["indices"][:] = 1
    refused(
        tmp_path,
        arrays,
        r"none of the first 10 rows can be used; 'dog/0': a class twice in cell .*expected \(n, k",
    )


def test_a_value_past_the_step_leaves_its_row_without_a_label(tmp_path, rng) -> None:
    arrays = make_arrays(rng)[1]
    arrays["values"][3, 0, 0, 0] = 300
    report = convert(save_npz(tmp_path / "a.npz", arrays), tmp_path / "a.zarr", workers=1)
    assert [sample_id for sample_id, _ in report.without_label] == ["cat/3"]


def write_photos(folder: Path, sample_ids) -> Path:
    for at, sample_id in enumerate(sample_ids):
        path = folder / f"{sample_id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((30 + at, 20), 50).save(path)
    return folder


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("save", [save_npz, save_folder])
def test_images_are_joined_by_name(tmp_path, rng, save, workers) -> None:
    arrays = make_arrays(rng)[1]
    photos = write_photos(tmp_path / "photos", arrays["sample_ids"][2:])
    location = save(tmp_path / ("a.npz" if save is save_npz else "a"), arrays)
    report = convert(location, tmp_path / "a.zarr", num_classes=NUM_CLASSES, images=photos, workers=workers)
    assert report.notes[-2:] == (
        "images 'photos' (class-folders): 8 of 10 labels have one; 2 labels have none ('dog/0', 'cat/1')",
        "orientation of the maps: undecided, on 8 photos",
    )
    store = open_store(tmp_path / "a.zarr")
    assert (store.manifest.images.name, store.manifest.images.kind) == ("photos", "class-folders")
    known = [(row["path"], row["width"], row["height"], row["sha256"]) for row in store.samples.to_pylist()]
    assert known[1:4] == [
        ("cat/1", None, None, None),
        ("dog/2.png", 30, 20, None),
        ("cat/3.png", 31, 20, None),
    ]


def test_what_a_table_says_of_images_stands_before_what_they_say(tmp_path, rng) -> None:
    arrays = make_arrays(rng)[1]
    folder, digest = save_folder(tmp_path / "a", arrays), "ab" * 32
    lines = [
        f"{sample_id},{7 if at == 1 else ''},{digest}" for at, sample_id in enumerate(arrays["sample_ids"])
    ]
    (folder / "samples.csv").write_text("\n".join(["sample_id,width,sha256", *lines]))
    photos = write_photos(tmp_path / "photos", arrays["sample_ids"])
    convert(folder, tmp_path / "a.zarr", num_classes=NUM_CLASSES, images=photos, workers=1)
    samples = open_store(tmp_path / "a.zarr").samples
    assert samples["width"].to_pylist()[:3] == [30, 7, 32]
    assert samples["sha256"].to_pylist() == [digest] * 10


def test_images_of_other_labels_are_refused(tmp_path, rng) -> None:
    photos = write_photos(tmp_path / "photos", ["bird/1"])
    refused(tmp_path, make_arrays(rng)[1], "none is of these labels", JoinError, images=str(photos))


def test_probabilities_further_on_stop_the_conversion(tmp_path, rng, monkeypatch) -> None:
    monkeypatch.setattr("relabel_store.spec.SHARD_ROWS", 256)
    _, arrays = make_arrays(rng, 300)
    arrays["values"][256:] = 0.3
    with pytest.raises(LabelSourceError, match=r"values of rows 256 to 299: .*probabilities"):
        convert(save_npz(tmp_path / "a.npz", arrays), tmp_path / "a.zarr", workers=1)


def test_a_file_of_another_kind_with_this_name_is_not_recognised(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_text("labels")
    with pytest.raises(LabelSourceError, match="of none of the forms"):
        formats.open_source(tmp_path / "a.npz", None, SourceOptions())
    with pytest.raises(LabelSourceError, match=r"expected a file that numpy\.savez wrote"):
        formats.open_source(tmp_path / "a.npz", "npz", SourceOptions())


@pytest.mark.parametrize("form", ["npz", "npy"])
def test_what_is_not_on_this_machine_is_refused(form: str) -> None:
    with pytest.raises(LabelSourceError, match="on this machine's disks"):
        formats.open_source("s3://bucket/a.npz", form, SourceOptions())


def test_a_folder_without_a_sample_table_is_refused_with_what_to_add(tmp_path, rng) -> None:
    path = save_folder(tmp_path / "mine", make_arrays(rng)[1])
    (path / "samples.csv").unlink()
    with pytest.raises(
        LabelSourceError, match=r"'mine': 0 sample tables, .*'samples.csv'.*'sample_id' or 'path'"
    ):
        formats.open_source(path, None, SourceOptions(num_classes=NUM_CLASSES))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelSourceError, match=r"with 'indices.npy' and 'values.npy'"):
        formats.open_source(tmp_path, "npy", SourceOptions())


def test_only_the_rows_of_a_part_are_read(tmp_path, rng, monkeypatch) -> None:
    """Memory does not grow with the number of rows: not even the pages of others are touched."""
    monkeypatch.setattr("relabel_store.spec.SHARD_ROWS", 256)
    _, arrays = make_arrays(rng, 600)
    path = save_folder(tmp_path / "mine", arrays)
    opened = {name: open_npy(path / f"{name}.npy") for name in ("indices", "values")}
    read: list[range] = []
    monkeypatch.setattr(
        type(opened["values"]),
        "read",
        lambda self, rows: read.append(rows) or np.array(arrays[self.path.stem][rows.start : rows.stop]),
    )
    source = ArraySource(
        "mine",
        opened,
        samples_of_ids("ids", arrays["sample_ids"].tolist()),
        GivenClasses(),
        SourceOptions(num_classes=NUM_CLASSES, value_step=ValueStep(0.5)),
    )
    read.clear()
    source.read_part(1)
    assert read == [range(256, 512)] * 2


def test_the_guides_arrays_are_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (Path(__file__).parents[3] / "docs" / "how-to" / "convert.md").read_text(encoding="utf-8")
    block = next(
        found
        for found in re.findall(r"^```python\n(.*?)^```", guide, re.DOTALL | re.MULTILINE)
        if "savez" in found
    )
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    convert("mine.npz", "labels.zarr", num_classes=1000, workers=1)
    store = open_store("labels.zarr")
    assert store.row_of("n01440764/n01440764_10027") == 1
    assert (store[0].values == 8.5).all()

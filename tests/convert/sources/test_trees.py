from __future__ import annotations

import pickle
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relabel_store.convert.run import convert
from relabel_store.convert.source import SourceOptions
from relabel_store.convert.sources import relabel, token_labeling, trees
from relabel_store.errors import LabelSourceError, NoLabelError, OptionError, TeacherError
from relabel_store.labels.topk import sort_ranks
from relabel_store.labels.values import ValueStep
from relabel_store.manifest import AbsentRule, Resize
from relabel_store.store.reader import open_store
from relabel_store.testing import file_digests

GRID, K, CLASSES = (4, 3), 3, 1000


@pytest.fixture(autouse=True)
def own_cache(cache) -> None:
    pass


def make_maps(rng: np.random.Generator, n: int = 8, k: int = K, grid=GRID, classes: int = CLASSES):
    indices = np.argsort(rng.random((n, classes, *grid)), axis=1)[:, :k]
    scores = -np.sort(-rng.normal(6, 3, indices.shape), axis=1)
    return indices, scores.astype(np.float32)


@pytest.fixture
def tree(tmp_path, rng, write_tree):
    """Eight maps as ReLabel has them: root, sample ids, indices, scores."""
    indices, scores = make_maps(rng)
    return tmp_path / "tree", write_tree(tmp_path / "tree", indices, scores), indices, scores


def assert_holds(store, ids, indices, scores, step=0.125) -> None:
    expected = sort_ranks(indices.astype(np.uint16), ValueStep.parse(step).encode(scores))
    found = store.read_rows([store.row_of(sample_id) for sample_id in ids])
    np.testing.assert_array_equal(found.indices, expected[0])
    np.testing.assert_array_equal(found.values, expected[1])


@settings(max_examples=12)
@given(
    n=st.integers(1, 5),
    k=st.integers(1, 4),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    is_half=st.booleans(),
    is_zip=st.booleans(),
    is_tar=st.booleans(),
    step=st.sampled_from([0.125, "exact"]),
    seed=st.integers(0, 2**16),
)
def test_a_tree_becomes_a_store_of_the_same_maps(
    write_tree, n, k, grid, is_half, is_zip, is_tar, step, seed
) -> None:
    indices, scores = make_maps(np.random.default_rng(seed), n, k, grid)
    scores = scores.astype(np.float16).astype(np.float32) if is_half else scores
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "tree")
        ids = write_tree(root, indices, scores, dtype=np.float16 if is_half else np.float32, is_zip=is_zip)
        if is_tar:
            with tarfile.open(f"{folder}/tree.tar", "w") as tar:
                tar.add(root, "data/tree")
            root = Path(folder, "tree.tar")
        report = convert(root, f"{folder}/a.zarr", value_step=step, workers=1)
        assert report.source_form == ("token-labeling" if is_half else "relabel")
        assert report.without_label == ()
        store = open_store(f"{folder}/a.zarr")
        assert_holds(store, ids, indices, scores, step)
        assert store.grid == grid


def test_what_the_files_do_not_say_is_unknown(tree) -> None:
    root, ids, *_ = tree
    source = relabel.open_source(root, SourceOptions())
    manifest = source.manifest
    assert manifest.geometry.resize is Resize.UNKNOWN
    assert manifest.geometry.input_size is None
    assert manifest.geometry.exif_orientation == "unknown"
    assert manifest.teacher.name == manifest.teacher.precision == manifest.images.name == "unknown"
    assert manifest.classes.digest is None
    assert manifest.label_map.num_classes == 1000
    assert source.samples["sample_id"].to_pylist() == sorted(ids)
    for name in ("class_index", "width", "height", "sha256"):
        assert source.samples[name].null_count == 8
    assert source.samples["class_name"].to_pylist()[0] == "n00"
    assert source.notes[0].startswith("form 'relabel': float32, top 3 on 4x3 cells, of an unknown part")
    assert source.notes[1] == (
        "not in the files: the teacher, its class count, taken to be 1000, its classes (--class-names), so no "
        "class_index"
    )


def test_the_generator_of_token_labeling_tells_what_its_maps_cover(tmp_path, rng, write_tree) -> None:
    write_tree(tmp_path / "tree", *make_maps(rng), dtype=np.float16)
    manifest = token_labeling.open_source(tmp_path / "tree", SourceOptions()).manifest
    assert manifest.geometry.resize is Resize.CENTER_CROP
    assert manifest.geometry.input_size is None
    assert manifest.geometry.exif_orientation == "ignored"


def test_a_form_can_be_named_where_it_would_be_taken_for_another(tmp_path, rng, write_tree) -> None:
    write_tree(tmp_path / "tree", *make_maps(rng), dtype=np.float16)
    assert token_labeling.recognise(tmp_path / "tree")
    assert not relabel.recognise(tmp_path / "tree")
    convert(tmp_path / "tree", tmp_path / "a.zarr", source_form="relabel", workers=1)
    assert open_store(tmp_path / "a.zarr").manifest.geometry.resize is Resize.UNKNOWN


def test_other_things_are_not_recognised(tmp_path, write_tree, rng) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other" / "c").mkdir(parents=True)
    torch.save(torch.zeros(3), tmp_path / "other" / "c" / "1.pt")
    for place in (tmp_path / "empty", tmp_path / "nothing", "s3://bucket/tree"):
        assert not relabel.recognise(place)
        assert not token_labeling.recognise(place)
    assert not token_labeling.recognise(tmp_path / "other")
    with pytest.raises(
        LabelSourceError,
        match=r"no label map in any of 1 files; the first, 'c/1\.pt': a tensor of float32 and shape",
    ):
        convert(tmp_path / "other", tmp_path / "a.zarr", workers=1)


def test_files_without_a_map_become_rows_without_a_label(tree, tmp_path) -> None:
    root, ids, indices, scores = tree
    paths = {sample_id: root / f"{sample_id}.pt" for sample_id in ids}
    paths[ids[0]].write_bytes(paths[ids[0]].read_bytes()[:500])
    paths[ids[1]].write_bytes(b"")
    torch.save(torch.zeros(2, 3, 4, 4), paths[ids[2]])
    torch.save({"a": torch.zeros(2)}, paths[ids[3]])
    twice = np.stack([scores[4], indices[4]]).astype(np.float32)
    twice[1, 0] = twice[1, 1]
    torch.save(torch.from_numpy(twice), paths[ids[4]])
    report = convert(root, tmp_path / "a.zarr", workers=1)
    reasons = dict(report.without_label)
    assert set(reasons) == set(ids[:5])
    assert reasons[ids[4]] == "a class twice in cell (0, 0)"
    assert "cut off" in reasons[ids[0]]
    assert "it is empty" in reasons[ids[1]]
    assert reasons[ids[2]] == "a map of shape [2, 3, 4, 4], expected [2, 3, 4, 3], as the others have"
    assert "a dict, expected a tensor" in reasons[ids[3]]
    store = open_store(tmp_path / "a.zarr")
    assert_holds(store, ids[5:], indices[5:], scores[5:])
    with pytest.raises(NoLabelError, match="cut off"):
        store[store.row_of(ids[0])]


def test_a_file_that_is_gone_when_its_turn_comes_is_a_row_without_a_label(tree) -> None:
    root, ids, *_ = tree
    source = relabel.open_source(root, SourceOptions())
    (root / f"{ids[0]}.pt").unlink()
    labels = source.read_part(0)
    assert [(bad.row, bad.reason) for bad in labels.bad_images] == [
        (0, "cannot be read: No such file or directory")
    ]


def test_an_interrupted_conversion_goes_on_to_the_same_bytes(tree, tmp_path, monkeypatch) -> None:
    root, *_ = tree
    monkeypatch.setattr(trees.spec, "SHARD_ROWS", 3)
    monkeypatch.setattr(trees.spec, "CHUNK_ROWS", 3)
    convert(root, tmp_path / "whole.zarr", workers=1)
    read_part = trees.TreeSource.read_part

    def stop(self, part: int):
        if part == 1:
            raise KeyboardInterrupt
        return read_part(self, part)

    monkeypatch.setattr(trees.TreeSource, "read_part", stop)
    with pytest.raises(KeyboardInterrupt):
        convert(root, tmp_path / "stopped.zarr", workers=1)
    monkeypatch.setattr(trees.TreeSource, "read_part", read_part)
    convert(root, tmp_path / "stopped.zarr", workers=1)
    assert file_digests(tmp_path / "stopped.zarr") == file_digests(tmp_path / "whole.zarr")


def test_a_tree_is_read_in_another_process(tree) -> None:
    source = relabel.open_source(tree[0], SourceOptions())
    ours, theirs = source.read_part(0), pickle.loads(pickle.dumps(source)).read_part(0)
    np.testing.assert_array_equal(ours.indices, theirs.indices)
    np.testing.assert_array_equal(ours.values, theirs.values)
    assert ours.facts.equals(theirs.facts)


def test_classes_are_matched_to_folders_where_their_list_is_given(tree, tmp_path) -> None:
    root, *_ = tree
    (tmp_path / "names.txt").write_text("\n".join(["x", "n02", "n00", *(f"c{i}" for i in range(997))]))
    source = relabel.open_source(root, SourceOptions(class_names=tmp_path / "names.txt"))
    assert source.samples["class_index"].to_pylist() == [2, 2, 2, None, None, None, 1, 1]
    assert "class names: 3 of 8 labels lie in a folder that is none" in source.notes
    (tmp_path / "few.txt").write_text("a\nb")
    with pytest.raises(TeacherError, match="2 names, expected 1000"):
        relabel.open_source(root, SourceOptions(class_names=tmp_path / "few.txt"))


def test_more_classes_than_were_said_are_refused_with_the_option(tmp_path, rng, write_tree) -> None:
    write_tree(tmp_path / "tree", *make_maps(rng, classes=1500))
    with pytest.raises(
        LabelSourceError, match=r"labels of 'n0.*class index 1\d{3}, expected below 1000; .*--num-classes"
    ):
        relabel.open_source(tmp_path / "tree", SourceOptions())
    source = relabel.open_source(tmp_path / "tree", SourceOptions(num_classes=1500))
    assert source.manifest.label_map.num_classes == 1500
    with pytest.raises(LabelSourceError, match="3 classes a cell, expected at most the class count, 2"):
        relabel.open_source(tmp_path / "tree", SourceOptions(num_classes=2))


@pytest.mark.parametrize(("dtype", "classes"), [(torch.float16, 21_841), (torch.bfloat16, 1000)])
def test_classes_that_were_rounded_are_refused_even_where_each_map_has_one_twice(
    tmp_path, rng, dtype, classes
) -> None:
    indices, scores = make_maps(rng, classes=classes)
    indices[:, :2, 0, 0] = classes - 1, classes - 2  # one and the same when rounded
    (tmp_path / "c").mkdir()
    for at in range(8):
        tensor = torch.from_numpy(np.stack([scores[at], indices[at].astype(np.float32)])).to(dtype)
        torch.save(tensor, tmp_path / "c" / f"{at}.pt")
    with pytest.raises(LabelSourceError, match=r"labels of '0': class index \d+ as b?float16, which rounds"):
        convert(tmp_path / "c", tmp_path / "a.zarr", num_classes=classes, source_form="relabel", workers=1)


def test_maps_none_of_which_can_be_used_are_refused_as_a_whole(tmp_path, rng, write_tree) -> None:
    indices, scores = make_maps(rng)
    write_tree(tmp_path / "tree", indices, scores + 1000)
    reason = (
        r"none of 8 maps that were looked at can be used; the first, 'n.*': value 1\d+.*--value-step exact"
    )
    with pytest.raises(LabelSourceError, match=reason):
        relabel.open_source(tmp_path / "tree", SourceOptions())
    source = relabel.open_source(tmp_path / "tree", SourceOptions(value_step=ValueStep(None)))
    assert source.read_part(0).is_labelled.all()


def test_probabilities_are_refused(tmp_path, rng, write_tree) -> None:
    indices, scores = make_maps(rng)
    probabilities = np.exp(scores) / (np.exp(scores).sum(axis=1, keepdims=True) + 1)
    write_tree(tmp_path / "tree", indices, probabilities)
    with pytest.raises(
        LabelSourceError,
        match=r"which are probabilities, expected logits; .*make the labels again without the softmax",
    ):
        relabel.open_source(tmp_path / "tree", SourceOptions())


def test_a_rest_is_refused_unless_nothing_is_left_out(tree, tmp_path, rng, write_tree) -> None:
    with pytest.raises(OptionError, match="hold 3 of 1000 classes a cell and nothing of the others"):
        relabel.open_source(tree[0], SourceOptions(absent=AbsentRule.REST))
    indices, scores = make_maps(rng, k=3, classes=3)
    ids = write_tree(tmp_path / "all", indices, scores)
    convert(tmp_path / "all", tmp_path / "a.zarr", absent="rest", num_classes=3, workers=1)
    store = open_store(tmp_path / "a.zarr")
    assert_holds(store, ids, indices, scores)
    rest = store.read_rows([0, 1]).rest
    assert rest is not None
    assert np.isneginf(rest).all()


def test_negative_scores_are_pointed_out(tmp_path, rng, write_tree) -> None:
    indices, scores = make_maps(rng)
    write_tree(tmp_path / "tree", indices, scores - 8)
    notes = relabel.open_source(tmp_path / "tree", SourceOptions()).notes
    assert "of the kept scores are negative, and a class that is not kept counts as 0" in notes[-1]


def test_most_files_decide_what_a_map_is_like(tree) -> None:
    root, ids, *_ = tree
    torch.save(torch.zeros(2, 1, 1, 1), root / f"{sorted(ids)[0]}.pt")
    assert relabel.open_source(root, SourceOptions()).manifest.label_map.grid == GRID

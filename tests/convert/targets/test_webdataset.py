from __future__ import annotations

import io
import json
import tarfile
import warnings
from typing import Any

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from PIL import Image

from relabel_store.convert.targets.webdataset import key_of
from relabel_store.errors import OptionError
from relabel_store.manifest import Manifest
from relabel_store.testing import MadeUpLabels, made_up_labels, make_manifest


def shards(path) -> list[str]:
    return [str(shard) for shard in sorted(path.glob("*.tar"))]


def read_shards(urls: list[str], *, decode: bool = False) -> list[dict[str, Any]]:
    found = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):  # it leaves its files open
        return list(found.decode() if decode else found)


@settings(max_examples=10)
@given(labels=made_up_labels())
def test_every_number_is_read_back_by_webdataset(labels: MadeUpLabels, written) -> None:
    maps = labels.maps
    with written(labels, "webdataset") as path:
        samples = read_shards(shards(path), decode=True)
    assert [sample["__key__"] for sample in samples] == [maps.sample_ids[row] for row in labels.labelled]
    for row, sample in zip(labels.labelled, samples, strict=True):
        for name, array in (("indices", maps.indices), ("values", maps.values), ("rest", maps.rest)):
            if array is not None:
                assert sample[f"{name}.npy"].dtype == array.dtype
                np.testing.assert_array_equal(sample[f"{name}.npy"], array[row])
        assert ("rest.npy" in sample) == (maps.rest is not None)
        assert (sample["label.json"]["sample_id"], sample["label.json"]["row"]) == (maps.sample_ids[row], row)


@pytest.fixture
def labels() -> MadeUpLabels:
    return MadeUpLabels.of(make_manifest(7), bad_images={2: "truncated"})


def test_headers_say_nothing_of_whoever_wrote_them(tmp_path, write, labels) -> None:
    write(labels, tmp_path / "out", "webdataset")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["made-up-000000.tar", "made-up-000001.tar", "relabel-store.json"]
    with tarfile.open(tmp_path / "out" / names[0]) as shard:
        members = shard.getmembers()
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime, m.mode) for m in members} == {(0, 0, "", "", 0, 0o644)}
    assert [member.name.split(".", 1)[1] for member in members[:3]] == [
        "indices.npy",
        "values.npy",
        "label.json",
    ]
    Manifest.from_dict(json.loads((tmp_path / "out" / names[-1]).read_bytes()))


def test_long_names_and_every_alphabet_come_through(tmp_path, write, named) -> None:
    ids = ["ä/写真", "folder " * 20 + "/" + "x" * 150]
    write(named(*ids), tmp_path / "out", "webdataset")
    assert [sample["__key__"] for sample in read_shards(shards(tmp_path / "out"))] == ids


def write_image_shards(path, sample_ids: list[str]) -> list[str]:
    """Three images a shard, as `tar` would pack them."""
    urls = []
    for number, start in enumerate(range(0, len(sample_ids), 3)):
        urls.append(str(path / f"images-{number:06d}.tar"))
        with tarfile.open(urls[-1], "w") as shard:
            for sample_id in sample_ids[start : start + 3]:
                picture = io.BytesIO()
                Image.new("RGB", (4, 4)).save(picture, "png")
                member = tarfile.TarInfo(f"{sample_id}.png")
                member.size = len(picture.getvalue())
                shard.addfile(member, io.BytesIO(picture.getvalue()))
    return urls


def test_labels_are_joined_to_image_shards_by_key(tmp_path, write, labels) -> None:
    write(labels, tmp_path / "out", "webdataset")
    images = read_shards(write_image_shards(tmp_path, labels.maps.sample_ids))
    of_key = {sample["__key__"]: sample for sample in read_shards(shards(tmp_path / "out"), decode=True)}
    joined = [{**image, **of_key[image["__key__"]]} for image in images if image["__key__"] in of_key]
    assert len(joined) == 6
    for row, sample in zip(labels.labelled, joined, strict=True):
        assert Image.open(io.BytesIO(sample["png"])).size == (4, 4)
        np.testing.assert_array_equal(sample["values.npy"], labels.maps.values[row])


@pytest.mark.parametrize(
    ("sample_id", "key"),
    [("a/b", "a/b"), ("a/b.c.d", "a/b"), ("v1.2/b", "v1.2/b"), ("b.c", "b"), (".b", None)],
)
def test_a_key_is_what_webdataset_makes_of_the_image_s_name(sample_id: str, key: str | None) -> None:
    assert key_of(sample_id) == key
    assert webdataset.tariterators.base_plus_ext(f"{sample_id}.jpg")[0] == key


def test_a_sample_with_a_dot_in_its_name_has_the_key_of_its_image(tmp_path, write, named) -> None:
    (note,) = write(named("a/b.c", "a/d"), tmp_path / "out", "webdataset").notes
    assert "1 samples have a key other than their id, such as 'a/b' of 'a/b.c'" in note
    samples = read_shards(shards(tmp_path / "out"), decode=True)
    assert [sample["__key__"] for sample in samples] == ["a/b", "a/d"]
    assert [sample["label.json"]["sample_id"] for sample in samples] == ["a/b.c", "a/d"]


@pytest.mark.parametrize(
    ("ids", "problem"),
    [
        (["a/b.c", "a/b.d"], r"'a/b\.c' and 'a/b\.d' are one to WebDataset"),
        (["a/b", "a/b.d"], r"'a/b' and 'a/b\.d' are one to WebDataset"),
        (["a/b", "a/.d"], r"'a/\.d' begins with a dot, so WebDataset finds no key"),
    ],
    ids=["two dots", "one dot", "hidden"],
)
def test_samples_that_webdataset_cannot_tell_apart_are_refused(tmp_path, write, named, ids, problem) -> None:
    with pytest.raises(OptionError, match=problem):
        write(named(*ids), tmp_path / "out", "webdataset")
    assert list(tmp_path.iterdir()) == []

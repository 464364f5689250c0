from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relabel_store.manifest import Classes, Manifest
from relabel_store.sample_ids import digest_of_ids, sample_id_of
from relabel_store.store.samples import SCHEMA, to_parquet
from relabel_store.testing import make_manifest, make_samples
from relabel_store.validate.finding import Place
from relabel_store.validate.sample_rules import column_problem
from relabel_store.validate.sample_table import SampleTableCheck, table_pieces

# What can make trouble in a name: case, marks that compose, dots, a line break, what sorts above the rest.
LETTERS = st.sampled_from(["a", "b", "B", ".", "e\u0301", "é", "\n", "\U0001f600", "\uffff", "jpg"])
NAMES = st.lists(LETTERS, min_size=1, max_size=3).map("".join)


def table_of(ids: list[str], manifest: Manifest) -> pa.Table:
    samples = make_samples(manifest, ids)
    facts = {"width": 4, "height": 3, "sha256": "0" * 64, "status": "labelled"}
    for name, value in facts.items():
        samples = with_column(samples, name, [value] * len(ids))
    return samples


def with_column(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    field = SCHEMA.field(name)
    return table.set_column(SCHEMA.get_field_index(name), field, pa.array(values, field.type))


def manifest_of(ids: list[str], *, kind: str, order: str) -> Manifest:
    manifest = make_manifest(max(len(ids), 1))
    images = replace(manifest.images, kind=kind, order=order, digest=digest_of_ids(ids))
    return replace(manifest, images=images)


def found_in(
    table: pa.Table, manifest: Manifest, pieces: int = 3, bad_rows: list[int] | None = None
) -> dict[str, int]:
    bad = None if bad_rows is None else np.array(bad_rows, np.int64)
    check = SampleTableCheck(manifest, Place(file="zarr.json"), bad)
    counts: dict[str, int] = {}
    size = -(-max(len(table), 1) // pieces)
    findings = [
        finding
        for start in range(0, max(len(table), 1), size)
        for finding in check.add("samples.parquet", table.slice(start, size))
    ]
    for finding in [*findings, *check.conclude()]:
        counts[finding.rule.id] = counts.get(finding.rule.id, 0) + finding.problem.count
    return counts


@settings(max_examples=60)
@given(
    ids=st.lists(st.lists(NAMES, min_size=1, max_size=2).map("/".join), min_size=1, max_size=12),
    order=st.sampled_from(["sample-id", "source"]),
    pieces=st.integers(1, 4),
)
def test_order_and_uniqueness_are_those_of_python(ids: list[str], order: str, pieces: int) -> None:
    manifest = manifest_of(ids, kind="list", order=order)
    table = table_of(ids, manifest)
    table = with_column(table, "path", [f"p{row}" for row in range(len(ids))])
    found = found_in(table, manifest, pieces)
    found.pop("RS405", None)  # of which is another test
    falls = sum(after < before for before, after in pairwise(ids))
    expected = {}
    if order == "sample-id":
        expected["RS412"] = falls
        if not falls:  # out of order, the same ids need not be neighbours
            expected["RS413"] = len(ids) - len(set(ids))
        else:
            found.pop("RS413", None)
    else:
        expected["RS413"] = len(ids) - len(set(ids))
    assert found == {rule: count for rule, count in expected.items() if count}


@settings(max_examples=60)
@given(paths=st.lists(st.lists(NAMES, min_size=1, max_size=3).map("/".join), min_size=1, max_size=8))
def test_ids_and_classes_of_folders_are_those_of_python(paths: list[str]) -> None:
    ids = [sample_id_of(path) for path in paths]
    manifest = manifest_of(ids, kind="class-folders", order="source")
    table = table_of(ids, manifest)
    table = with_column(table, "path", paths)
    classes = [path.split("/")[0] if "/" in path else None for path in paths]
    table = with_column(table, "class_name", classes)
    table = with_column(table, "class_index", [None] * len(paths))
    found = found_in(table, manifest)
    outside = sum(".." in path.split("/") for path in paths)
    empty = sum(sample_id == "" for sample_id in ids)
    expected = {"RS406": outside, "RS413": len(ids) - len(set(ids)), "RS405": empty}
    assert found == {rule: count for rule, count in expected.items() if count}


def test_ids_are_known_by_their_digest():
    ids = ["cat/a", "cat/b"]
    manifest = manifest_of(ids, kind="list", order="sample-id")
    assert found_in(table_of(ids, manifest), manifest) == {}
    other = replace(manifest, images=replace(manifest.images, digest=digest_of_ids(["cat/a"])))
    assert found_in(table_of(ids, manifest), other) == {"RS414": 1}


@pytest.mark.parametrize(
    ("path", "is_outside"),
    [
        ("cat/a.jpg", False),
        ("a..b/c", False),
        ("...", False),
        ("C:colon", False),
        ("/cat/a.jpg", True),
        ("../a.jpg", True),
        ("cat/../../a.jpg", True),
        ("cat/..", True),
        ("C:\\a.jpg", True),
        ("C:/a.jpg", True),
        ("\\\\host\\a", True),
        ("file:///a.jpg", True),
        ("s3://bucket/a.jpg", True),
    ],
)
def test_paths_stay_below_the_root(path: str, is_outside: bool):
    manifest = manifest_of(["x"], kind="list", order="source")
    table = table_of(["x"], manifest)
    table = with_column(table, "path", [path])
    assert found_in(table, manifest) == ({"RS406": 1} if is_outside else {})


@pytest.mark.parametrize(
    ("sample_id", "is_of_a_machine"),
    [
        ("/home/alice/cat/a", True),
        ("/nfs/home/alice/a", True),
        ("/Users/alice/a", True),
        ("file:///data/a", True),
        ("C:\\Users\\alice\\a", True),
        ("\\\\host\\share\\a", True),
        ("/data/in/cat/a.jpg", True),
        ("/data/in/cat/a", True),
        ("/cat/a", False),
        ("/m/01g317", False),
        ("/home/a", False),
        ("home/alice/a", False),
        ("~misc/a", False),
        ("photo@2x", False),
        ("C:colon", False),
        ("https://example.org/cat/a.jpg", False),
    ],
)
def test_an_id_is_found_that_is_surely_a_path_of_a_machine(sample_id: str, is_of_a_machine: bool):
    manifest = manifest_of([sample_id], kind="list", order="source")
    table = with_column(table_of([sample_id], manifest), "path", ["cat/a.jpg"])
    assert found_in(table, manifest) == ({"RS415": 1} if is_of_a_machine else {})


@pytest.mark.parametrize(
    ("classes", "index", "is_guessed"),
    [
        (["cat", "dog"], 0, False),
        (["cat", "dog"], None, False),
        (["cat", "dog"], 1, True),
        (["cat", "dog"], 7, True),
        (["cat", "cat"], 0, True),
        (["ape", "dog"], 0, True),
        (None, 0, True),
        (None, None, False),
    ],
    ids=[
        "the class",
        "unknown",
        "another",
        "none",
        "one of two",
        "no class of the list",
        "no list",
        "nothing known",
    ],
)
def test_the_class_of_a_folder_is_not_guessed(classes: list[str] | None, index: int | None, is_guessed: bool):
    manifest = make_manifest(1, num_classes=2)
    manifest = replace(
        manifest,
        classes=Classes.of(None, classes, None),
        images=replace(manifest.images, digest=digest_of_ids(["cat/a"])),
    )
    table = table_of(["cat/a"], manifest)
    table = with_column(table, "class_index", [index])
    assert found_in(table, manifest) == ({"RS408": 1} if is_guessed else {})


def test_statuses_are_compared_with_the_records():
    ids = ["cat/a", "cat/b", "cat/c", "dog/d"]
    manifest = manifest_of(ids, kind="class-folders", order="sample-id")
    table = table_of(ids, manifest)
    table = with_column(table, "status", ["labelled", "bad-image", "labelled", "missing"])
    assert found_in(table, manifest, bad_rows=[1]) == {"RS411": 1}
    assert found_in(table, manifest, bad_rows=[2]) == {"RS411": 3}
    assert found_in(table, manifest, bad_rows=None) == {}


def test_a_table_is_read_some_lines_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("relabel_store.validate.sample_table._SLICE", 2)
    manifest = manifest_of(["cat/a", "cat/b", "cat/c"], kind="list", order="source")
    table = table_of(["cat/a", "cat/b", "cat/c"], manifest)
    (tmp_path / "t").write_bytes(to_parquet(table))
    for source in (tmp_path / "t", to_parquet(table)):
        pieces = list(table_pieces(source))
        assert [len(piece) for piece in pieces] == [2, 1]
        assert pa.concat_tables(pieces).equals(table)


def test_text_that_is_not_utf8_is_refused(tmp_path: Path):
    manifest = manifest_of(["cat/a"], kind="list", order="source")
    table = table_of(["cat/a"], manifest)
    ends = pa.py_buffer(np.array([0, 2], np.int32))
    wrong = pa.Array.from_buffers(pa.string(), 1, [None, ends, pa.py_buffer(b"\xff\xfe")])
    pq.write_table(table.set_column(1, SCHEMA.field("sample_id"), wrong), tmp_path / "t")
    with pytest.raises(pa.ArrowInvalid, match="UTF8"):
        list(table_pieces(tmp_path / "t"))


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        (SCHEMA, None),
        (SCHEMA.append(pa.field("more", pa.int8())), None),
        (SCHEMA.remove(1), "0 columns 'sample_id'"),
        (SCHEMA.append(pa.field("row", pa.int64())), "2 columns 'row'"),
        (SCHEMA.set(0, pa.field("row", pa.int32())), "column 'row' of int32, not int64"),
        (SCHEMA.set(8, pa.field("status", pa.large_string())), "column 'status' of large_string, not string"),
    ],
    ids=["as it is", "one more", "one less", "one twice", "smaller integers", "larger text"],
)
def test_columns_are_those_of_the_format(schema: pa.Schema, problem: str | None):
    assert column_problem(schema) == problem

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relabel_store.errors import FormatError, SampleNotFoundError
from relabel_store.store import samples
from relabel_store.store.samples import (
    FACTS_SCHEMA,
    SCHEMA,
    SampleIds,
    SampleIndex,
    column_values,
    from_parquet,
    planned_samples,
    to_parquet,
    with_facts,
)
from relabel_store.testing import make_label_maps, make_manifest, make_part, make_samples


def plan(
    sample_ids: Sequence[str], class_names: Sequence[str | None] | None = None, **known: int
) -> pa.Table:
    names = [None] * len(sample_ids) if class_names is None else class_names
    return planned_samples(sample_ids, [f"{sample_id}.jpg" for sample_id in sample_ids], names, known)


def make_facts(rng: np.random.Generator, part: int, bad_images: dict[int, str] | None = None) -> pa.Table:
    manifest = make_manifest()
    return make_part(manifest, make_label_maps(rng, manifest), part, bad_images).facts


def index_of(sample_ids: Sequence[str]) -> SampleIndex:
    return SampleIndex(pa.chunked_array([pa.array(sample_ids, pa.string())]))


def test_the_columns_are_those_of_the_design_in_its_order() -> None:
    expected = [
        ("row", "int64"),
        ("sample_id", "string"),
        ("path", "string"),
        ("class_index", "int32"),
        ("class_name", "string"),
        ("width", "int32"),
        ("height", "int32"),
        ("sha256", "string"),
        ("status", "string"),
    ]
    assert [(field.name, str(field.type)) for field in SCHEMA] == expected


def test_planned_samples_follow_the_schema() -> None:
    assert plan(["a", "b"]).schema.equals(SCHEMA)


def test_planned_samples_are_missing_and_nothing_is_known_of_them() -> None:
    table = plan(["a", "b"])
    assert table["status"].to_pylist() == ["missing", "missing"]
    assert all(table[name].null_count == 2 for name in ("width", "height", "sha256"))


def test_rows_are_numbered_in_the_order_given() -> None:
    table = plan(["b", "a", "c"])
    assert table["row"].to_pylist() == [0, 1, 2]
    assert table["sample_id"].to_pylist() == ["b", "a", "c"]


def test_the_class_of_a_folder_is_the_teachers_and_null_where_it_has_none() -> None:
    table = plan(["a", "b", "c"], ["dog", "cow", None], cat=0, dog=1)
    assert table["class_index"].to_pylist() == [1, None, None]
    assert table["class_name"].to_pylist() == ["dog", "cow", None]


def test_no_class_is_known_to_a_teacher_without_a_class_list() -> None:
    assert plan(["a"], ["dog"])["class_index"].to_pylist() == [None]


def test_facts_are_put_into_the_rows_of_their_part(rng: np.random.Generator) -> None:
    samples = make_samples(make_manifest())
    table = with_facts(samples, {1: make_facts(rng, 1, {5: "bad"})}, shard_rows=4)
    assert table["status"].to_pylist() == ["missing"] * 4 + ["labelled", "bad-image", "labelled", "labelled"]
    assert table["width"].to_pylist() == [None] * 4 + [500, None, 500, 500]
    assert table["sha256"].to_pylist()[4:] == [f"{row:064x}" for row in range(4, 8)]


def test_facts_that_are_in_the_table_stay(rng: np.random.Generator) -> None:
    samples = make_samples(make_manifest())
    both = with_facts(samples, {0: make_facts(rng, 0), 1: make_facts(rng, 1)}, shard_rows=4)
    assert with_facts(both, {0: None, 1: None}, shard_rows=4).equals(both)


def test_rows_of_a_part_that_is_not_finished_become_missing(rng: np.random.Generator) -> None:
    samples = make_samples(make_manifest())
    both = with_facts(samples, {0: make_facts(rng, 0), 1: make_facts(rng, 1)}, shard_rows=4)
    table = with_facts(both, {1: None}, shard_rows=4)
    assert table["status"].to_pylist() == ["missing"] * 4 + ["labelled"] * 4
    assert table["sha256"].to_pylist()[:4] == [None] * 4


def test_facts_leave_the_schema_and_the_other_columns_alone(rng: np.random.Generator) -> None:
    samples = make_samples(make_manifest())
    table = with_facts(samples, {0: make_facts(rng, 0)}, shard_rows=4)
    planned = ["row", "sample_id", "path", "class_index", "class_name"]
    assert table.schema.equals(SCHEMA)
    assert table.select(planned).equals(samples.select(planned))


def test_the_last_part_may_be_short(rng: np.random.Generator) -> None:
    manifest = make_manifest(n=5)
    facts = make_part(manifest, make_label_maps(rng, manifest), 1).facts
    table = with_facts(make_samples(manifest), {1: facts}, shard_rows=4)
    assert table["status"].to_pylist() == ["missing"] * 4 + ["labelled"]


def test_a_table_survives_parquet() -> None:
    table = plan(["a", "b"], ["dog", None], dog=0)
    assert from_parquet(to_parquet(table), SCHEMA).equals(table)


def test_equal_tables_are_equal_bytes_however_they_are_chunked() -> None:
    table = plan([f"{row:03d}" for row in range(10)])
    pieces = pa.concat_tables([table.slice(0, 3), table.slice(3)])
    assert to_parquet(pieces.combine_chunks()) == to_parquet(table)


def test_some_columns_can_be_read_alone() -> None:
    table = from_parquet(to_parquet(plan(["a", "b"])), SCHEMA, ["sample_id"])
    assert table.to_pydict() == {"sample_id": ["a", "b"]}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"PAR1 and no more", id="no table"),
        pytest.param(to_parquet(plan(["a"]))[:-10], id="truncated"),
        pytest.param(to_parquet(plan(["a"]).drop_columns(["status"])), id="missing column"),
        pytest.param(
            to_parquet(plan(["a"]).set_column(3, "class_index", pa.array(["one"]))), id="text for a number"
        ),
        pytest.param(
            to_parquet(
                plan(["a"]).set_column(1, pa.field("sample_id", pa.string()), pa.nulls(1, pa.string()))
            ),
            id="null for a sample id",
        ),
    ],
)
def test_what_is_no_sample_table_is_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError, match="sample table: "):
        from_parquet(data, SCHEMA)


def test_the_facts_of_a_part_have_a_schema_of_their_own(rng: np.random.Generator) -> None:
    facts = make_facts(rng, 0)
    assert from_parquet(to_parquet(facts), FACTS_SCHEMA).equals(facts)


IDS = st.lists(
    st.text("ab/é\N{GRINNING FACE}z.", min_size=1, max_size=5), min_size=1, max_size=20, unique=True
)


@given(IDS)
def test_every_sample_is_found_in_a_sorted_table(sample_ids: list[str]) -> None:
    index = index_of(sorted(sample_ids))
    assert [index.row_of(sample_id) for sample_id in sorted(sample_ids)] == list(range(len(sample_ids)))


@given(IDS, st.randoms())
def test_every_sample_is_found_in_an_unsorted_table(sample_ids: list[str], random: Any) -> None:
    random.shuffle(sample_ids)
    index = index_of(sample_ids)
    assert [index.row_of(sample_id) for sample_id in sample_ids] == list(range(len(sample_ids)))


@given(IDS, st.text(max_size=6))
def test_no_other_sample_is_found(sample_ids: list[str], other: str) -> None:
    index = index_of(sample_ids)
    if other in sample_ids:
        assert sample_ids[index.row_of(other)] == other
    else:
        with pytest.raises(SampleNotFoundError):
            index.row_of(other)


@given(sample_ids=st.lists(st.text(max_size=3), unique=True), asked=st.lists(st.text(max_size=3)))
def test_many_ids_are_found_as_one_is(sample_ids: list[str], asked: list[str]) -> None:
    sample_ids, asked = (
        [text.encode("utf-8", "ignore").decode() for text in texts] for texts in (sample_ids, asked)
    )
    sample_ids = list(dict.fromkeys(sample_ids))
    expected = [sample_ids.index(one) if one in sample_ids else -1 for one in asked]
    assert index_of(sample_ids).rows_of(asked).tolist() == expected


def test_the_id_of_a_row_is_the_one_in_the_table() -> None:
    index = index_of(["c", "a", "b"])
    assert index.sample_ids(np.array([2, 0, 1, 2])) == ["b", "c", "a", "b"]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.chunked_array([[1, None], [3]], pa.int32()), [1, -1, 3]),
        (pa.array([None, 5, 6], pa.uint64())[1:], [5, 6]),
        (pa.nulls(2, pa.int32()), [-1, -1]),
        (pa.chunked_array([], pa.int32()), []),
    ],
    ids=["chunks and a null", "a slice", "nothing but nulls", "nothing"],
)
def test_the_integers_of_a_column_have_a_number_for_null(column: Any, expected: list[int]) -> None:
    found = column_values(column)
    assert (found.tolist(), found.dtype) == (expected, np.int64)


def test_ids_of_rows_are_a_sequence_of_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "_ROW_GROUP_ROWS", 2)
    rows = np.arange(6)[::-2]  # a view with steps of its own
    ids = SampleIds(plan(list("abcdef"))["sample_id"], rows)
    assert (len(ids), list(ids), ids[0], ids[-1]) == (3, ["f", "d", "b"], "f", "b")
    assert list(ids[1:]) == ["d", "b"]
    assert ("d" in ids, "e" in ids, ids.index("b")) == (True, False, 2)
    assert repr(ids) == "<SampleIds 'f', 'd', …: 3>"
    with pytest.raises(IndexError):
        ids[3]


def test_ids_in_several_chunks_are_found() -> None:
    index = SampleIndex(pa.chunked_array([["a", "b"], ["c"], ["d", "e"]]))
    assert [index.row_of(sample_id) for sample_id in "abcde"] == list(range(5))


NEAR = ["cat/1", "cat/2", "dog/1", "dog/café"]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]], ids=["sorted", "unsorted"])
@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ("cat/2.jpg", "near it: 'cat/2'"),
        (unicodedata.normalize("NFD", "dog/café"), "near it: 'dog/café'"),
        (unicodedata.normalize("NFD", "dog/café.jpeg"), "near it: 'dog/café'"),
        ("cat/15", "near it: 'cat/1', 'cat/2', 'dog/1'"),
        ("", "near it: 'cat/1', 'cat/2'"),
        ("..", "near it: 'cat/1', 'cat/2'"),
        ("zebra", "near it: 'dog/café'"),
    ],
    ids=["with suffix", "other normal form", "both", "between", "before", "dots", "after"],
)
def test_a_missing_sample_names_what_is_near(order: list[int], asked: str, near: str) -> None:
    index = index_of([NEAR[position] for position in order])
    with pytest.raises(SampleNotFoundError) as caught:
        index.row_of(asked)
    assert str(caught.value) == f"sample {asked!r}: not among the 4 of the store; {near}"

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from relabel_store.convert.sources.given_samples import read_sample_table, samples_of_ids
from relabel_store.errors import LabelSourceError
from relabel_store.store.journal import BadImage


@pytest.fixture(params=["csv", "parquet"])
def table(request, tmp_path: Path):
    """Write a sample table of columns of text, return its path."""

    def write(**columns: list[str | None]) -> Path:
        path = tmp_path / f"samples.{request.param}"
        if request.param == "csv":
            rows = zip(*columns.values(), strict=True)
            lines = [",".join(columns), *(",".join(one or "" for one in row) for row in rows)]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        else:
            pq.write_table(
                pa.table({name: pa.array(some, pa.string()) for name, some in columns.items()}), path
            )
        return path

    return write


def test_a_path_gives_the_id_and_the_class_folder(table) -> None:
    samples = read_sample_table(table(path=["dog/a.jpg", "./cat//b.c.png", "e.jpg"]))
    assert samples.sample_ids == ["dog/a", "cat/b.c", "e"]
    assert samples.paths == ["dog/a.jpg", "cat/b.c.png", "e.jpg"]
    assert samples.class_names == ["dog", "cat", None]


def test_ids_are_taken_as_they_are_in_nfc(table) -> None:
    samples = read_sample_table(table(sample_id=["dog/a.1", "e\u0301"]))
    assert samples.sample_ids == samples.paths == ["dog/a.1", "\u00e9"]
    assert samples.class_names == ["dog", None]


def test_what_is_said_of_images_becomes_their_facts(table) -> None:
    samples = read_sample_table(
        table(
            row=["0", "1", "2"],
            sample_id=["a", "b", "c"],
            class_name=["dog", None, "cat"],
            width=["500", None, "4"],
            height=["375", "1", None],
            sha256=["AB" * 32, None, "0" * 64],
            unknown=["x", "y", "z"],
        )
    )
    planned = samples.planned({"cat": 7})
    assert planned["class_name"].to_pylist() == ["dog", None, "cat"]
    assert planned["class_index"].to_pylist() == [None, None, 7]
    facts = samples.facts_of(range(1, 3), [BadImage(2, "torn")])
    assert facts.to_pydict() == {
        "width": [None, 4],
        "height": [1, None],
        "sha256": [None, "0" * 64],
        "status": ["labelled", "missing"],
        "size_bytes": [0, 0],
    }
    assert samples.facts["sha256"][0].as_py() == "ab" * 32


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"name": ["a"]}, r"columns 'name', expected 'sample_id' or 'path'"),
        ({"sample_id": ["a", "b", "a"]}, r"'a' in rows 0 and 2"),
        ({"path": ["a.jpg", "a.png"]}, r"'a' in rows 0 and 1"),
        ({"sample_id": ["a", None], "class_name": ["x", "y"]}, "in row 1, expected a sample id"),
        ({"sample_id": ["a/../../b"]}, "stays below"),
        ({"path": ["a.jpg", "../b.jpg"]}, "in row 1"),
        (
            {"path": ["n01/a.jpg", "/home/alice/n01/b.jpg"]},
            "in row 1 is absolute, expected a sample id or path below",
        ),
        ({"path": ["s3://bucket/n01/b.jpg"]}, "in row 0 is absolute"),
        ({"path": ["C:\\photos\\b.jpg"]}, "in row 0 is absolute"),
        ({"sample_id": ["a//b"]}, "doubled slashes"),
        ({"sample_id": ["a"], "width": ["0"]}, r"width 0 in row 0, expected pixels"),
        ({"sample_id": ["a"], "height": ["tall"]}, r"'samples\..*tall"),
        ({"sample_id": ["a"], "sha256": ["abc"]}, r"sha256 'abc' in row 0, expected 64"),
        ({"sample_id": ["a", "b"], "row": ["1", "0"]}, "not in order of their column 'row'"),
        ({"sample_id": ["a", "b"], "row": ["0", None]}, "not in order"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value),
)
def test_what_cannot_be_is_refused_with_its_row(table, columns, message: str) -> None:
    with pytest.raises(LabelSourceError, match=message):
        read_sample_table(table(**columns))


@pytest.mark.parametrize("name", ["samples.csv", "samples.parquet"])
@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe\x00", b"PAR1", None], ids=["empty", "no text", "cut", "gone"]
)
def test_a_table_that_cannot_be_read_is_refused(tmp_path: Path, name: str, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(LabelSourceError, match=f"sample table '{name}'"):
        read_sample_table(tmp_path / name)


def test_a_column_that_is_there_twice_is_no_column(tmp_path: Path) -> None:
    (tmp_path / "samples.csv").write_text("sample_id,sample_id\na,b\n")
    with pytest.raises(LabelSourceError, match="once"):
        read_sample_table(tmp_path / "samples.csv")


def test_ids_with_line_breaks_are_refused() -> None:
    with pytest.raises(LabelSourceError, match="of one line"):
        samples_of_ids("ids", ["a\nb"])

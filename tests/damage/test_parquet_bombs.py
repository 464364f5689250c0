"""Small Parquet files from strangers that unfold into gigabytes: refused in little memory, wherever they are."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from relabel_store.images.recognise import open_images
from relabel_store.store.files import FileEntry
from relabel_store.store.journal import facts_path, record_path
from relabel_store.store.reader import open_store
from relabel_store.store.samples import SCHEMA, from_parquet
from relabel_store.store.writer import StoreWriter
from relabel_store.testing import make_manifest, make_store
from relabel_store.testing.damage import forge_file, forge_json
from relabel_store.testing.limits import within_limits
from relabel_store.validate.run import validate_store

Writer = Callable[[pa.Table], bytes]
MANY = 100_000
LONG = "x" * 20_000


def written(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", **options)
    return sink.getvalue()


def samples(n: int, **columns: pa.Array) -> pa.Table:
    """Return a sample table with some columns of one's own; the others repeat."""
    values = {"row": 0, "class_index": 0, "width": 1, "height": 1, "status": "labelled"}
    found = {
        field.name: columns.get(field.name, pa.repeat(pa.scalar(values.get(field.name, "a"), field.type), n))
        for field in SCHEMA
    }
    return pa.table(found, schema=SCHEMA)


def repeated(text: str, n: int) -> pa.Array:
    """Return a text n times, in the memory of one: as Arrow's dictionary."""
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), n), [text])


def with_repeated(names: Sequence[str], text: str, n: int, **options: Any) -> bytes:
    """Return a table file whose columns of one text unfold into copies of it, which are never made here."""
    table = samples(n)
    for name in names:
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, repeated(text, n))
    return written(table, store_schema=False, dictionary_pagesize_limit=2**30, **options)


def one_long_text() -> bytes:
    return written(samples(2, path=pa.array(["x" * 2**28, "y"])), use_dictionary=False)


BOMBS: dict[str, Callable[[], bytes]] = {
    "a text that repeats": lambda: with_repeated(["path"], LONG, MANY),
    "a dictionary of a hundred megabytes": lambda: with_repeated(["class_name"], "x" * 100_000_000, 1000),
    "many row groups of it": lambda: with_repeated(["path"], LONG, MANY, row_group_size=2000),
    "one text of a quarter of a gigabyte": one_long_text,
    "prefixes that repeat": lambda: written(
        samples(MANY // 10, path=pa.array([LONG] * (MANY // 10))),
        use_dictionary=False,
        column_encoding={"path": "DELTA_BYTE_ARRAY"},
    ),
}


@pytest.fixture(scope="module")
def bombs() -> dict[str, bytes]:
    return {name: make() for name, make in BOMBS.items()}


@pytest.mark.parametrize("columns", [None, ["row", "class_name", "path"]], ids=["all", "some"])
@pytest.mark.parametrize("what", BOMBS)
def test_a_sample_table_that_unfolds_into_gigabytes_is_refused(
    bombs: dict[str, bytes], what: str, columns: list[str] | None
) -> None:
    assert len(bombs[what]) < 200_000
    answer = within_limits(lambda: from_parquet(bombs[what], SCHEMA, columns))
    assert answer.startswith(f"FormatError: sample table: {len(bombs[what])} bytes unfold into")


def test_a_table_of_a_million_nulls_a_row_group_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    schema = pa.schema([("path", pa.string()), ("class_name", pa.string())])
    nulls = pa.table([pa.nulls(2**20, kind.type) for kind in schema], schema=schema)
    with pq.ParquetWriter(path, schema) as writer:
        for _ in range(40):
            writer.write_table(nulls, row_group_size=2**20)
    assert path.stat().st_size < 200_000
    answer = within_limits(lambda: open_images(path))
    assert answer.startswith("ImageSourceError: ")
    assert "bytes unfold into" in answer


@pytest.mark.parametrize("column", ["path", "sample_id"])
def test_a_list_of_images_whose_text_repeats_is_refused(tmp_path: Path, column: str) -> None:
    path = tmp_path / "list.parquet"
    path.write_bytes(with_repeated([column], LONG, MANY))
    answer = within_limits(lambda: open_images(path))
    assert answer.startswith("ImageSourceError: ")
    assert "bytes unfold into" in answer


@pytest.mark.parametrize("what", ["the image", "its path"])
def test_a_table_of_images_that_unfolds_is_refused(tmp_path: Path, what: str) -> None:
    long = b"x" * 100_000_000
    n = 100 if what == "the image" else MANY
    many = pa.DictionaryArray.from_arrays(
        pa.repeat(pa.scalar(0, pa.int32()), n), pa.array([long if what == "the image" else b"x"], pa.binary())
    )
    table = pa.table({"image": many, "path": repeated("a" if what == "the image" else LONG, n)})
    (tmp_path / "train.parquet").write_bytes(
        written(table, store_schema=False, dictionary_pagesize_limit=2**30)
    )
    answer = within_limits(lambda: open_images(tmp_path / "train.parquet").read(0))
    assert "bytes unfold into" in answer


# Parts of a store


def part_with(store: Path, name: str, change: Callable[[pa.Table], pa.Table]) -> bytes:
    """Return the file of a part with columns that unfold, under the schema that it had."""
    with pq.ParquetFile(store / name, pre_buffer=False) as file:
        table, metadata, rows = file.read(use_threads=False), file.metadata.metadata, file.metadata.num_rows
    changed, sink = change(table), io.BytesIO()
    options = {"store_schema": False, "dictionary_pagesize_limit": 2**30, "compression": "zstd"}
    with pq.ParquetWriter(sink, changed.schema, **options) as writer:
        writer.write_table(changed, row_group_size=rows)
        writer.add_key_value_metadata(
            metadata
        )  # also ARROW:schema, which says what Arrow is to make of the columns
    return sink.getvalue()


def with_many_items(table: pa.Table) -> pa.Table:
    at = table.schema.get_field_index("indices")
    items = np.zeros(2**26, np.uint16)
    ends = np.full(len(table) + 1, len(items), np.int32)
    ends[0] = 0
    item = pa.field("element", pa.uint16(), nullable=False)
    lists = pa.ListArray.from_arrays(pa.array(ends), pa.array(items), type=pa.list_(item))
    return table.set_column(at, pa.field("indices", lists.type, nullable=False), lists)


def with_long_path(table: pa.Table) -> pa.Table:
    at = table.schema.get_field_index("path")
    lists = repeated(LONG, len(table))
    return table.set_column(at, pa.field("path", lists.type, nullable=False), lists)


PARTS = {"items": with_many_items, "text": with_long_path}
NAME = "made-up-00000-of-00001.parquet"


@pytest.fixture(scope="module")
def forged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    rows = 40_000
    manifest = make_manifest(rows, grid=(1, 1), k=1, shard_rows=rows, chunk_rows=rows, encoding="parquet")
    made = {}
    for what, change in PARTS.items():
        made[what] = tmp_path_factory.mktemp("forged") / "store"
        make_store(made[what], np.random.default_rng(0), manifest)
        forge_file(NAME, part_with(made[what], NAME, change), made[what])
        assert (made[what] / NAME).stat().st_size < 2_000_000
    return made


QUESTIONS: dict[str, Callable[[Path], object]] = {
    "a row": lambda path: open_store(path)[0],
    "load": lambda path: open_store(path).load().read_rows([0]),
    "samples": lambda path: len(open_store(path).samples),
    "materialize": lambda path: open_store(path).materialize(path.parent / "cache").read_rows([0]),
    "validate": lambda path: validate_store(path).has_errors(),
    "structure": lambda path: validate_store(path, level="structure").has_errors(),
}


@pytest.mark.parametrize("what", PARTS)
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_part_that_unfolds_into_gigabytes_takes_no_memory(
    forged: dict[str, Path], what: str, question: str
) -> None:
    answer = within_limits(lambda: QUESTIONS[question](forged[what]))
    refused = answer.startswith(("DamagedFileError: ", "FormatError: ")) and "unfold" in answer
    found = answer == "returned True" and question in ("validate", "structure")
    # The label maps of a part are read without its texts, and the other way round.
    untouched = (what, question) in (("items", "samples"), ("items", "structure"))
    assert refused or found or (untouched and answer.startswith("returned ")), answer


@pytest.mark.parametrize("question", ["samples", "validate", "finish"])
def test_facts_of_a_part_that_unfold_are_refused(tmp_path: Path, question: str) -> None:
    path = tmp_path / "store"
    make_store(path, np.random.default_rng(0), parts=[0, 1])
    facts = pa.table({name: [1] * MANY for name in ("width", "height", "size_bytes")})
    for name in ("sha256", "status"):
        facts = facts.append_column(name, repeated(LONG, MANY))
    bomb = written(facts, store_schema=False, dictionary_pagesize_limit=2**30)
    forge_file(facts_path(0), bomb, path)
    forge_json(record_path(0), lambda record: record.update(facts=FileEntry.of_bytes(bomb).to_json()), path)
    ask = {**QUESTIONS, "finish": lambda path: StoreWriter.resume(path).complete()}[question]
    answer = within_limits(lambda: ask(path))
    assert "unfold" in answer or answer == "returned True"

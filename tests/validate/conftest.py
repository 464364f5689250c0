"""Stores to judge: valid ones, and each defect as a recipe that turns a valid one into an invalid one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from relabel_store import spec
from relabel_store.canonical import canonical_json, with_digest
from relabel_store.manifest import AbsentRule, Geometry, Resize
from relabel_store.sample_ids import digest_of_ids
from relabel_store.store.arrays import array_specs
from relabel_store.store.encodings import encoding_of
from relabel_store.store.files import FileEntry
from relabel_store.store.reader import open_store
from relabel_store.store.samples import to_parquet
from relabel_store.store.writer import StoreWriter
from relabel_store.testing import make_label_maps, make_manifest, make_part, make_samples, make_store

STORES = Path(__file__).parents[1] / "data" / "stores"
SEALS = ("shards", "records", "list", "digest")


@pytest.fixture(autouse=True)
def fsync_that_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up stores need not survive a power cut, and on a busy disk fsync is most of a test's time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="session")
def valid_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the valid, or unfinished, store of a name: nobody may touch it."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            path = STORES / "valid" / name
            if not path.is_dir():
                folder = "unfinished" if name.startswith("unfinished-") else "valid"
                recipe = STORES / folder / f"{name.removeprefix('unfinished-')}.json"
                path = tmp_path_factory.mktemp("valid") / "s"
                make_from(path, json.loads(recipe.read_text(encoding="utf-8")))
            made[name] = path
        return made[name]

    return make


@pytest.fixture
def invalid_store(tmp_path: Path, valid_store: Callable[[str], Path]) -> Callable[[Mapping[str, Any]], Path]:
    """Return the store that a recipe of a defect makes."""

    def make(recipe: Mapping[str, Any]) -> Path:
        path = tmp_path / "s"
        if "make" in recipe:
            make_from(path, recipe)
        else:
            shutil.copytree(valid_store(recipe["store"]), path)
        Defect(path).apply(recipe)
        return path

    return make


def make_from(path: Path, recipe: Mapping[str, Any]) -> None:
    """Write the store that a recipe below ``valid/`` or ``unfinished/`` describes."""
    options = dict(recipe["make"])
    manifest = make_manifest(**{**options, "absent": AbsentRule(options.get("absent", "zero"))})
    ids = recipe.get("sample_ids")
    if recipe.get("is_converted"):
        geometry = Geometry(None, None, None, None, Resize.CENTER_CROP, exif_orientation="unknown")
        manifest = replace(manifest, build=None, geometry=geometry)
    if ids is None:
        bad = {int(row): reason for row, reason in recipe.get("bad_images", {}).items()}
        make_store(path, np.random.default_rng(0), manifest, bad_images=bad, parts=recipe.get("parts"))
        return
    images = replace(manifest.images, kind="list", order="source", digest=digest_of_ids(ids))
    manifest = replace(manifest, images=images)
    writer = StoreWriter.begin(path, manifest, make_samples(manifest, ids))
    maps = make_label_maps(np.random.default_rng(0), manifest)
    for part in range(manifest.num_parts):
        writer.write_part(part, make_part(manifest, maps, part))
    writer.complete()


class Defect:
    """Turns a valid store into an invalid one by the changes of a recipe; the README beside the recipes lists them."""

    def __init__(self, store: Path) -> None:
        self.store = store

    def apply(self, recipe: Mapping[str, Any]) -> None:
        """Make the changes, then let everything that records them fit again, as far as the recipe says."""
        for change in recipe["changes"]:
            name, argument = next(iter(change.items()))
            options = {key: value for key, value in change.items() if key != name}
            getattr(self, f"do_{name}")(argument, **options)
        self.seal(recipe.get("seal", SEALS))

    def do_remove(self, name: str) -> None:
        (self.store / name).unlink()

    def do_write(self, name: str, text: str) -> None:
        (self.store / name).parent.mkdir(parents=True, exist_ok=True)
        (self.store / name).write_text(text, encoding="utf-8")

    def do_folder(self, name: str) -> None:
        (self.store / name).mkdir(parents=True)

    def do_copy(self, name: str, to: str) -> None:
        shutil.copyfile(self.store / name, self.store / to)

    def do_cut(self, name: str, size_bytes: int) -> None:
        path = self.store / name
        path.write_bytes(path.read_bytes()[:-size_bytes])

    def do_flip(self, name: str, byte: int) -> None:
        data = bytearray((self.store / name).read_bytes())
        data[byte] ^= 1
        (self.store / name).write_bytes(data)

    def do_edit(self, name: str, set: Mapping[str, Any] | None = None, drop: Iterable[str] = ()) -> None:  # noqa: A002
        document = self.read(name)
        for pointer, value in (set or {}).items():
            parent, key = follow(document, pointer)
            parent[key] = value
        for pointer in drop:
            parent, key = follow(document, pointer)
            del parent[key]
        self.write(name, document)

    def do_indent(self, name: str) -> None:
        (self.store / name).write_text(json.dumps(self.read(name), indent=1), encoding="utf-8")

    def do_manifest(self, changes: Mapping[str, Any]) -> None:
        is_zarr = (self.store / spec.GROUP_FILE).exists()
        file, at = (
            (spec.GROUP_FILE, "/attributes/relabel_store") if is_zarr else (spec.COMPLETE_FILE, "/manifest")
        )
        self.do_edit(file, set={f"{at}{pointer}": value for pointer, value in changes.items()})

    def do_array(self, name: str, set: Mapping[str, Any] | None = None, drop: Iterable[str] = ()) -> None:  # noqa: A002
        """Change the description of a Zarr array, both where it lies beside it and in the group."""
        self.do_edit(f"{name}/{spec.GROUP_FILE}", set, drop)
        at = f"/consolidated_metadata/metadata/{name}"
        moved = {f"{at}{pointer}": value for pointer, value in (set or {}).items()}
        self.do_edit(spec.GROUP_FILE, moved, [f"{at}{pointer}" for pointer in drop])

    def do_record(self, part: int, set: Mapping[str, Any]) -> None:  # noqa: A002
        if (self.store / spec.COMPLETE_FILE).exists():
            at = f"/parts/{part}"
            self.do_edit(spec.COMPLETE_FILE, {f"{at}{pointer}": value for pointer, value in set.items()})

    def do_record_in_journal(self, part: int, set: Mapping[str, Any]) -> None:  # noqa: A002
        name = f"{spec.JOURNAL_DIR}/{spec.part_name(part)}.json"
        self.do_edit(name, set)
        self.write(name, with_digest(self.read(name)))

    def do_labels(self, part: int, set: Mapping[str, Mapping[str, float]]) -> None:  # noqa: A002
        """Change numbers of a part: its rows from 0, then rank, row and column of the grid."""
        store = open_store(self.store)
        manifest, encoding = store.manifest, encoding_of(store.manifest)
        rows = manifest.rows_of_part(part)
        arrays = {name: array.empty(len(rows)) for name, array in array_specs(manifest).items()}
        store.decode_part(part, arrays)
        for name, numbers in set.items():
            for position, value in numbers.items():
                at = tuple(slice(None) if step == ":" else int(step) for step in position.split(","))
                arrays[name][at] = value
        samples = store.samples.slice(rows.start, len(rows))
        # Parts hold the manifest as it was when the store was begun.
        for name, data in encoding.encode_part(manifest.reopened(), part, arrays, samples).items():
            (self.store / name).write_bytes(data)

    def do_samples(
        self, columns: Mapping[str, Mapping[str, Any]], drop: str | None = None, keep: int | None = None
    ) -> None:
        path = self.store / spec.SAMPLES_FILE
        table = pq.read_table(path)
        for name, values in columns.items():
            column = table[name].to_pylist()
            for row, value in values.items():
                column[int(row)] = value
            field = table.schema.field(name).with_nullable(True)
            table = table.set_column(table.schema.get_field_index(name), field, pa.array(column, field.type))
        table = table if drop is None else table.drop_columns(drop)
        path.write_bytes(to_parquet(table if keep is None else table.slice(0, keep)))

    def do_parquet(
        self, name: str, add: str | None = None, manifest_name: str | None = None, **options: Any
    ) -> None:
        """Write a Parquet file again with other options."""
        path = self.store / name
        with pq.ParquetFile(path) as file:
            table, metadata = file.read(), file.metadata.metadata[spec.MANIFEST_ATTRIBUTE.encode()]
        if add is not None:
            table = table.append_column(add, pa.array(range(len(table))))
        if manifest_name is not None:
            metadata = canonical_json({**json.loads(metadata), "name": manifest_name})
        settings: dict[str, Any] = {
            "compression": "zstd",
            "use_dictionary": ["class_name", "status"],
            "row_group_size": 2,
            **options,
        }
        row_group_size = settings.pop("row_group_size")
        with pq.ParquetWriter(path, table.schema, **settings) as writer:
            writer.write_table(table, row_group_size=row_group_size)
            writer.add_key_value_metadata({spec.MANIFEST_ATTRIBUTE: metadata.decode()})

    def seal(self, steps: Iterable[str]) -> None:
        """Let records, list and digests fit the files again."""
        path = self.store / spec.COMPLETE_FILE
        if not steps or not path.exists():
            return
        document = self.read(spec.COMPLETE_FILE)
        if "shards" in steps:
            for record in document["parts"]:
                for name in record["files"]:
                    if (self.store / name).exists():
                        record["files"][name] = FileEntry.of_bytes((self.store / name).read_bytes()).to_json()
        if "records" in steps:
            document["parts"] = [with_digest(record) for record in document["parts"]]
            for record in document["parts"]:
                journal = self.store / spec.JOURNAL_DIR / f"{spec.part_name(record['part'])}.json"
                if journal.exists():
                    journal.write_bytes(canonical_json(record))
        if "list" in steps:
            for name in document["files"]:
                if (self.store / name).exists():
                    document["files"][name] = FileEntry.of_bytes((self.store / name).read_bytes()).to_json()
        if "digest" in steps:
            document = with_digest(document)
        self.write(spec.COMPLETE_FILE, document)

    def read(self, name: str) -> Any:
        return json.loads((self.store / name).read_bytes())

    def write(self, name: str, document: Any) -> None:
        (self.store / name).write_bytes(canonical_json(document))


def follow(document: Any, pointer: str) -> tuple[Any, Any]:
    """Return what holds the value at a JSON pointer, and its key there."""
    steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
    for step in steps[:-1]:
        document = document[int(step) if isinstance(document, list) else step]
    return document, int(steps[-1]) if isinstance(document, list) else steps[-1]

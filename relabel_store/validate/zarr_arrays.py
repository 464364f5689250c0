"""Rules of the encoding ``zarr``: the ``zarr.json`` of each array against the manifest."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from relabel_store import spec
from relabel_store.manifest import Layout
from relabel_store.store.arrays import ArraySpec, array_specs
from relabel_store.validate.documents import json_object
from relabel_store.validate.evidence import Evidence
from relabel_store.validate.finding import Place, Problem
from relabel_store.validate.rule import check

_RESTORE = "restore it from a copy; as it is, other programs read other numbers"
_CODECS = ("transpose", "bytes", "zstd", "blosc", "crc32c")
_CHECKSUM = "crc32c"


@dataclass(frozen=True)
class ArrayDocument:
    """The ``zarr.json`` of an array, and what the manifest makes of the array."""

    array: ArraySpec
    layout: Layout
    file: str
    document: dict[str, Any]

    def place(self, field: str) -> Place:
        """Return the place of a field."""
        return Place(file=self.file, field=field)

    @property
    def sharding(self) -> dict[str, Any]:
        """The configuration of the sharding codec; empty where the array is not sharded."""
        codecs = _codecs(self.document.get("codecs"))
        if len(codecs) != 1 or codecs[0][0] != "sharding_indexed":
            return {}
        return codecs[0][1]

    @property
    def codecs(self) -> list[tuple[str, dict[str, Any]]]:
        """Name and configuration of the codecs of a chunk."""
        return _codecs(self.sharding.get("codecs"))


def _codecs(found: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return codecs of a list, each an object or only a name; anything else has the name ``"?"``."""
    codecs = []
    for codec in found if isinstance(found, list) else ():
        name = codec.get("name") if isinstance(codec, dict) else codec
        configuration = codec.get("configuration") if isinstance(codec, dict) else None
        codecs.append(
            (
                name if isinstance(name, str) else "?",
                configuration if isinstance(configuration, dict) else {},
            )
        )
    return codecs


def array_documents_of(evidence: Evidence) -> Iterator[ArrayDocument]:
    """Yield the documents of the arrays of a store that are JSON objects, and what was recorded."""
    manifest = evidence.manifest
    assert manifest is not None
    for name, array in array_specs(manifest).items():
        file = f"{name}/{spec.GROUP_FILE}"
        document = json_object(evidence.read(file) or b"") if evidence.is_as_recorded(file) else None
        if document is not None:
            yield ArrayDocument(array, manifest.layout, file, document)


@check("RS301", "F30", spoils=True)
def check_array_is_zarr(evidence: Evidence) -> Iterator[Problem]:
    """Each array is described as a Zarr v3 array, in a Zarr v3 group."""
    assert evidence.manifest is not None
    kinds = {f"{name}/{spec.GROUP_FILE}": "array" for name in array_specs(evidence.manifest)}
    kinds[spec.GROUP_FILE] = "group"
    for file, kind in kinds.items():
        data = evidence.read(file)
        if data is None or not evidence.is_as_recorded(file):
            continue
        document = json_object(data) or {}
        found = {name: document.get(name) for name in ("zarr_format", "node_type")}
        expected = {"zarr_format": 3, "node_type": kind}
        if found != expected:
            yield Problem(Place(file=file), _short(found), _short(expected), _RESTORE)


@check("RS302", "F15", "F30", spoils=True)
def check_array_shape(found: ArrayDocument) -> Iterator[Problem]:
    """The shape of each array is that of the manifest: samples, ranks, rows and columns of the grid."""
    if found.document.get("shape") != list(found.array.shape):
        yield Problem(
            found.place("shape"), _short(found.document.get("shape")), str(list(found.array.shape)), _RESTORE
        )


@check("RS303", "F15", "F30", spoils=True)
def check_array_dimensions(found: ArrayDocument) -> Iterator[Problem]:
    """The dimensions of each array are named `sample`, `rank`, `row`, `col`."""
    if found.document.get("dimension_names") != list(found.array.dimensions):
        yield Problem(
            found.place("dimension_names"),
            _short(found.document.get("dimension_names")),
            str(list(found.array.dimensions)),
            _RESTORE,
        )


@check("RS304", "F11", "F14", "F19", spoils=True)
def check_array_dtype(found: ArrayDocument) -> Iterator[Problem]:
    """`indices` are uint16, or uint32 where there are more than 65,535 classes; `values` and `rest` float16."""
    if found.document.get("data_type") != found.array.dtype.name:
        yield Problem(
            found.place("data_type"),
            _short(found.document.get("data_type")),
            repr(found.array.dtype.name),
            _RESTORE,
        )


@check("RS305", "F33", spoils=True)
def check_array_fill_value(found: ArrayDocument) -> Iterator[Problem]:
    """The fill value is no label: the largest integer of `indices`, NaN of `values` and `rest`."""
    fill = found.array.fill_value
    expected: Any = "NaN" if math.isnan(fill) else int(fill)
    value = found.document.get("fill_value")
    if value != expected or isinstance(value, bool):
        yield Problem(found.place("fill_value"), _short(value), repr(expected), _RESTORE)


@check("RS306", "F31", spoils=True)
def check_array_sharding(found: ArrayDocument) -> Iterator[Problem]:
    """Each array is sharded along the samples only, `shard_rows` a shard and `chunk_rows` a chunk, index at the end."""
    grid, sharding = found.document.get("chunk_grid"), found.sharding
    configuration = grid.get("configuration") if isinstance(grid, dict) else None
    shape = configuration.get("chunk_shape") if isinstance(configuration, dict) else None
    row_shape = list(found.array.row_shape)
    # The index is at the end where nothing else is said.
    read = {
        "rows a shard": shape,
        "rows a chunk": sharding.get("chunk_shape"),
        "index": sharding.get("index_location", "end"),
        "index codecs": [name for name, _ in _codecs(sharding.get("index_codecs"))],
    }
    expected = {
        "rows a shard": [found.layout.shard_rows, *row_shape],
        "rows a chunk": [found.layout.chunk_rows, *row_shape],
        "index": "end",
        "index codecs": ["bytes", _CHECKSUM],
    }
    for name, value in expected.items():
        if read[name] != value:
            yield Problem(
                found.place("codecs" if name != "rows a shard" else "chunk_grid"),
                f"{name}: {_short(read[name]) if sharding else 'not sharded'}",
                str(value),
                _RESTORE,
            )
            return


@check("RS307", "F32", spoils=True)
def check_array_codecs(found: ArrayDocument) -> Iterator[Problem]:
    """The last codec of a chunk is `crc32c`; the others are `transpose`, `bytes`, `zstd` or `blosc`."""
    if not found.sharding:
        return  # that is RS306
    names = [name for name, _ in found.codecs]
    if names[-1:] != [_CHECKSUM] or _CHECKSUM in names[:-1] or set(names) - set(_CODECS):
        yield Problem(
            found.place("codecs"),
            " > ".join(names)[:80] or "none",
            f"some of {', '.join(_CODECS[:-1])}, then {_CHECKSUM}",
            "build the store again, or convert it: damage to it would go unnoticed",
        )


@check("RS308", "F34", spoils=True)
def check_array_keys(found: ArrayDocument) -> Iterator[Problem]:
    """Zarr finds the shards of an array where this format keeps them, in `c/`, and transforms nothing on the way."""
    keys = found.document.get("chunk_key_encoding")
    name = keys.get("name") if isinstance(keys, dict) else keys
    configuration = keys.get("configuration") if isinstance(keys, dict) else None
    separator = configuration.get("separator", "/") if isinstance(configuration, dict) else "/"
    if (name, separator) != ("default", "/"):
        yield Problem(
            found.place("chunk_key_encoding"), _short(keys), "'default' with the separator '/'", _RESTORE
        )
    if found.document.get("storage_transformers", []) != []:
        yield Problem(
            found.place("storage_transformers"),
            _short(found.document["storage_transformers"]),
            "none",
            _RESTORE,
        )


@check("RS309", "F35")
def check_consolidated(evidence: Evidence) -> Iterator[Problem]:
    """The group of a finished store holds the metadata of its arrays inline, as their own files do."""
    if not evidence.is_finished or not evidence.is_as_recorded(spec.GROUP_FILE):
        return
    group = json_object(evidence.read(spec.GROUP_FILE) or b"") or {}
    consolidated = group.get("consolidated_metadata")
    inline = consolidated.get("metadata") if isinstance(consolidated, dict) else None
    own = {found.array.name: found.document for found in array_documents_of(evidence)}
    assert evidence.manifest is not None
    if not isinstance(inline, dict) or set(inline) != set(array_specs(evidence.manifest)):
        yield Problem(
            Place(file=spec.GROUP_FILE, field="consolidated_metadata"),
            "missing" if consolidated is None else f"that of {_short(sorted(inline or ()))}",
            f"that of {sorted(array_specs(evidence.manifest))}",
            "restore it from a copy: programs that trust it find no arrays, or others",
        )
        return
    for name in sorted(own):
        if inline[name] != own[name]:
            yield Problem(
                Place(file=spec.GROUP_FILE, field=f"consolidated_metadata.metadata.{name}"),
                f"{_first_difference(inline[name], own[name])}",
                f"what `{name}/{spec.GROUP_FILE}` says",
                _RESTORE,
            )


@check("RS310", "F30", "F31", "F32", spoils=True)
def check_as_begun(evidence: Evidence) -> Iterator[Problem]:
    """While a store is being built, its arrays are described as the build began with them."""
    manifest, encoding = evidence.manifest, evidence.encoding
    assert manifest is not None
    assert encoding is not None
    if evidence.is_finished:
        return
    for file, expected in encoding.fixed_files(manifest).items():
        data = evidence.read(file)
        if data is not None and data != expected:
            difference = _first_difference(json_object(data), json_object(expected))
            yield Problem(Place(file=file), difference, "what the manifest gives", "run the same build again")


OF_ARRAYS = (
    check_array_shape,
    check_array_dimensions,
    check_array_dtype,
    check_array_fill_value,
    check_array_sharding,
    check_array_codecs,
    check_array_keys,
)
OF_STORE = (check_array_is_zarr, check_consolidated)
"""Of a store that somebody else may have written, with other codecs."""


def _first_difference(found: Any, expected: Any) -> str:
    """Say where two JSON documents differ."""
    if not isinstance(found, dict) or not isinstance(expected, dict):
        return f"{_short(found)} for {_short(expected)}"
    for name in sorted({*found, *expected}, key=str):
        one, other = found.get(name), expected.get(name)
        if one != other:
            return f"{name!r} is {_short(one)}, not {_short(other)}"
    return "other bytes of the same content"


def _short(value: Any) -> str:
    text = str(value) if not isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"

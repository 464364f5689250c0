"""Every way in which a store can be damaged, one by one, for tests of what reads stores."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from relabel_store import spec
from relabel_store.canonical import canonical_json, with_digest
from relabel_store.store.encodings import ENCODINGS
from relabel_store.store.files import FileEntry
from relabel_store.testing.tables import SAMPLE_CHANGES, change_samples, holds_samples

Change = Callable[[bytes], bytes | None]


@dataclass(frozen=True)
class Damage:
    """One damage.

    Parameters
    ----------
    kind
        What is done, as a table has it.
    place
        Where, as text.
    files
        The files that are not what was written any more.
    do
        Does it to the store in a directory.
    is_forged
        Whether all digests fit again, as whoever wants to deceive would have it: another store, of another digest.
    """

    kind: str
    place: str
    files: tuple[str, ...]
    do: Callable[[Path], object]
    is_forged: bool = False

    def __str__(self) -> str:
        return f"{self.kind}: {self.place}"


def every_damage(store: Path, other: Path, *, stride: int = 1) -> Iterator[Damage]:
    """Yield every damage to a store.

    Parameters
    ----------
    other
        A sound store of the same manifest with other labels, as finished as this one.
    stride
        Of the bytes to flip and the lengths to cut to, look at each of this number only.
    """
    names = _names(store)
    for name in names:
        yield from _of_bytes(name, (store / name).read_bytes(), stride)
        yield from _of_whole_file(store, other, name)
    yield from _of_journal(store)
    yield from _of_manifest(store)
    yield from _of_completion(store)
    for name in names:
        if holds_samples(store / name):
            yield from _of_samples(store, name)
    yield from _of_extra(store)


def _names(store: Path) -> list[str]:
    found = (path for path in sorted(store.rglob("*")) if path.is_file())
    # A lock says nothing; its content, and whether it is there, are nobody's business.
    return [path.relative_to(store).as_posix() for path in found if path.suffix != ".lock"]


def _of_bytes(name: str, data: bytes, stride: int) -> Iterator[Damage]:
    for offset in range(0, len(data), stride):
        changed = data[:offset] + bytes([data[offset] ^ 1 << offset % 8]) + data[offset + 1 :]
        yield _to_file("a bit flipped", name, lambda _, changed=changed: changed, f"byte {offset}")  # type: ignore[misc]
    for length in range(1, len(data), stride):
        yield _to_file("cut off", name, lambda data, length=length: data[:length], f"after {length} bytes")  # type: ignore[misc]


def _of_whole_file(store: Path, other: Path, name: str) -> Iterator[Damage]:
    data = (store / name).read_bytes()
    if data:
        yield _to_file("emptied", name, lambda _: b"")
        yield _to_file("zeroed", name, lambda data: bytes(len(data)))
        yield _to_file("beginning lost", name, lambda data: data[1:])
    yield _to_file("bytes appended", name, lambda data: data + b"\0")
    yield _to_file("removed", name, lambda _: None)
    for sibling in _names(store):
        if sibling > name and _kind(sibling) == _kind(name) and (store / sibling).read_bytes() != data:
            yield Damage(
                "changed places with another part's",
                f"{name}, {sibling}",
                (name, sibling),
                partial(_exchange, name, sibling),
            )
    foreign = other / name
    if foreign.exists() and foreign.read_bytes() != data:
        yield _to_file("taken from another store", name, lambda _, foreign=foreign: foreign.read_bytes())  # type: ignore[misc]


def _kind(name: str) -> str:
    """Return the name without digits: that of two parts is the same."""
    return "".join("#" if character.isdigit() else character for character in name)


def _to_file(kind: str, name: str, change: Change, where: str = "") -> Damage:
    def do(store: Path) -> None:
        path = store / name
        data = change(path.read_bytes())
        path.unlink()
        if data is not None:
            path.write_bytes(data)

    return Damage(kind, f"{name} {where}".strip(), (name,), do)


def _exchange(one: str, other: str, store: Path) -> None:
    data = (store / one).read_bytes()
    (store / one).write_bytes((store / other).read_bytes())
    (store / other).write_bytes(data)


def _of_journal(store: Path) -> Iterator[Damage]:
    """Of a store that is being built: a record without what it names, and files without a record."""
    if (store / spec.COMPLETE_FILE).exists():
        return
    for record in sorted((store / spec.JOURNAL_DIR).glob("part-*.json")):
        name = record.relative_to(store).as_posix()
        listed = list(json.loads(record.read_bytes())["files"])

        def remove(names: list[str], store: Path) -> None:
            for gone in names:
                (store / gone).unlink()

        yield Damage("record without its shards", name, tuple(listed), partial(remove, listed))
        yield Damage("shards without their record", name, (name,), partial(remove, [name]))


# Documents


def _of_manifest(store: Path) -> Iterator[Damage]:
    name, find = manifest_place(store)
    document = json.loads((store / name).read_bytes())
    for path, value in _other_documents(find(document)):

        def edit(document: dict[str, Any], path: tuple[Any, ...] = path, value: Any = value) -> None:
            _put(find(document), path, value)

        place = f"{name} {_spell(path)} = {_short(value)}"
        yield Damage("manifest edited", place, (name,), partial(_edit_json, name, edit))
        yield Damage(
            "manifest edited, digests fit",
            place,
            (name, spec.COMPLETE_FILE),
            partial(forge_json, name, edit),
            is_forged=True,
        )


def _of_completion(store: Path) -> Iterator[Damage]:
    name = spec.COMPLETE_FILE
    if not (store / name).exists():
        return
    document = json.loads((store / name).read_bytes())
    manifest = document.pop("manifest", None)
    for path, value in _other_documents(document):
        if path == ("digest",):
            continue

        def edit(document: dict[str, Any], path: tuple[Any, ...] = path, value: Any = value) -> None:
            _put(document, path, value)

        place = f"{_spell(path)} = {_short(value)}"
        yield Damage("complete.json edited", place, (name,), partial(_edit_json, name, edit))
        yield Damage(
            "complete.json edited, digests fit",
            place,
            (name,),
            partial(forge_json, name, edit),
            is_forged=True,
        )
    del manifest  # its fields are edited by themselves


def manifest_place(store: Path) -> tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]:
    """Return the JSON file that holds the manifest of a store, and what finds it in there."""
    completion = store / spec.COMPLETE_FILE
    if completion.exists() and "manifest" in json.loads(completion.read_bytes()):
        return spec.COMPLETE_FILE, lambda document: document["manifest"]
    names = (encoding.manifest_file for encoding in ENCODINGS.values())
    name = next(name for name in names if (store / name).exists())
    if name == spec.GROUP_FILE:
        return name, lambda document: document["attributes"][spec.MANIFEST_ATTRIBUTE]
    return name, lambda document: document


# What a field may also say, of those that must not be just any number or text.
_OTHER_VALUES: Mapping[str, tuple[Any, ...]] = {
    "state": ("building", "complete"),
    "value_step": ("exact", 1, 0.5, 0.25, 0.0625),
    "absent": ("zero", "rest"),
    "name": ("parquet", "zarr", "packed", "another"),
    "format_version": ("1.1", "2.0"),
    "version": ("1.1", "2.0"),
    "resize": ("center-crop", "unknown"),
    "num_samples": (1, 7, 9, 10**12),
    "k": (1, 3, 65535),
    "num_classes": (2, 6, 70_000),
    "shard_rows": (2, 8, 16),
    "chunk_rows": (1, 4),
}


def _other_documents(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield every place in a JSON document with another value for it."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield (*path, key), _GONE
            yield from _other_documents(value, (*path, key))
    elif isinstance(document, list):
        if document[::-1] != document:
            yield path, document[::-1]
        if document:
            yield path, document[:-1]
            yield path, [*document, document[-1]]
        for at, value in enumerate(document[:3]):  # the rest of a list is of the same kind
            yield from _other_documents(value, (*path, at))
    key = path[-1] if path else None
    legal = _OTHER_VALUES.get(key, ()) if isinstance(key, str) else ()
    for value in (*legal, *_other_values(document)):
        if path and value != document:
            yield path, value


def _other_values(value: Any) -> tuple[Any, ...]:
    if isinstance(value, bool):
        return (not value, None)
    if isinstance(value, int):
        return (value + 1, value - 1, 0, -1, 2**63, 10**30, float(value) + 0.5, str(value), None)
    if isinstance(value, float):
        return (value * 2, -value, str(value), None)
    if isinstance(value, str):
        return (f"{value}x", value[:-1], f"../{value}", "", 1, None)
    if value is None:
        return (1, "text", [])
    return (None, "text")


class _Gone:
    def __repr__(self) -> str:
        return "nothing"


_GONE = _Gone()


def _put(document: Any, path: tuple[Any, ...], value: Any) -> None:
    *above, last = path
    for key in above:
        document = document[key]
    if isinstance(value, _Gone):
        del document[last]
    else:
        document[last] = value


def _spell(path: tuple[Any, ...]) -> str:
    return "/".join(map(str, path)) or "all of it"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _edit_json(name: str, edit: Callable[[Any], object], store: Path) -> None:
    document = json.loads((store / name).read_bytes())
    edit(document)
    (store / name).write_bytes(canonical_json(document))


def forge_json(name: str, edit: Callable[[Any], object], store: Path) -> None:
    """Change a JSON file of a store so that every digest in the store fits again."""
    document = json.loads((store / name).read_bytes())
    edit(document)
    if isinstance(document, dict) and name == spec.COMPLETE_FILE:
        parts = document.get("parts")
        if isinstance(parts, list):
            document["parts"] = [with_digest(part) if isinstance(part, dict) else part for part in parts]
    if isinstance(document, dict) and "digest" in document:
        document = with_digest(document)
    forge_file(name, canonical_json(document), store)


def forge_file(name: str, data: bytes, store: Path) -> None:
    """Replace a file of a store so that every digest in the store fits again."""
    (store / name).write_bytes(data)
    entry = FileEntry.of_bytes(data).to_json()
    begun = store / spec.RUNNING_DIR / "begun.json"
    for list_file in (store / spec.COMPLETE_FILE, begun):
        if name == spec.COMPLETE_FILE or not list_file.exists():
            continue
        document = json.loads(list_file.read_bytes())
        entries = document.get("files", document)
        if name in entries:
            entries[name] = entry
        for part in document.get("parts", ()):
            if name in part["files"]:
                part["files"][name] = entry
                part.update(with_digest(part))
        list_file.write_bytes(canonical_json(with_digest(document) if "digest" in document else document))
    for record in sorted((store / spec.JOURNAL_DIR).glob("part-*.json")):
        if record != store / name:
            document = json.loads(record.read_bytes())
            if name in document["files"]:
                document["files"][name] = entry
                forge_file(record.relative_to(store).as_posix(), canonical_json(with_digest(document)), store)


# Sample tables and strangers


def _of_samples(store: Path, name: str) -> Iterator[Damage]:
    for what, change in SAMPLE_CHANGES.items():
        data = change_samples(store / name, change)
        if data is None:
            continue
        place = f"{name} {what}"
        yield Damage(
            "sample table changed",
            place,
            (name,),
            lambda store, data=data: (store / name).write_bytes(data),  # type: ignore[misc]
        )
        yield Damage(
            "sample table changed, digests fit",
            place,
            (name, spec.COMPLETE_FILE),
            partial(forge_file, name, data),
            is_forged=True,
        )


def _of_extra(store: Path) -> Iterator[Damage]:
    shard = next(name for name in _names(store) if _kind(name) not in (spec.COMPLETE_FILE, spec.GROUP_FILE))
    extra = {
        "notes.txt": b"mine",
        "empty": b"",
        f"{spec.JOURNAL_DIR}/part-00099.json": b"{}",
        f"{shard}.bak": (store / shard).read_bytes(),
        "stray-00000-of-00001.parquet": b"PAR1",
        ".hidden": b"x",
    }
    for name, data in extra.items():

        def add(store: Path, name: str = name, data: bytes = data) -> None:
            (store / name).parent.mkdir(parents=True, exist_ok=True)
            (store / name).write_bytes(data)

        yield Damage("a file added", name, (name,), add)
    yield Damage("a folder added", "strange/", ("strange",), lambda store: (store / "strange").mkdir())

"""Fuzzing of whatever parses files of strangers: `make fuzz`, or one target by hand.

    python fuzz/harness.py TARGET [options of libFuzzer] fuzz/corpus/TARGET

Errors of ours are answers. Anything else that is raised is a defect, as is taking more memory or time than a file of
the size can ask for.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["relabel_store"]):
    import numpy as np

    from relabel_store.canonical import canonical_json, read_json, with_digest
    from relabel_store.errors import BadImageError, RelabelStoreError
    from relabel_store.generate.decode import Interpolation, decode_image
    from relabel_store.manifest import Manifest
    from relabel_store.store.complete import Completion
    from relabel_store.store.journal import PartRecord
    from relabel_store.store.reader import open_store
    from relabel_store.store.samples import SCHEMA, from_parquet
    from relabel_store.testing import make_manifest, make_store
    from relabel_store.testing.damage import forge_file
    from relabel_store.validate.run import validate_store

WORK = Path(
    tempfile.mkdtemp(prefix="relabel-store-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
)
ZARR, PARQUET, PACKED = (WORK / name for name in ("zarr", "parquet", "packed"))


def fuzz_json(data: bytes, parse: Callable[[object], object]) -> None:
    """Parse a document as it is, and with its digest put right."""
    with contextlib.suppress(ValueError):
        document = read_json(data)
        with contextlib.suppress(RelabelStoreError):
            parse(document)
        if isinstance(document, dict):
            with contextlib.suppress(RelabelStoreError):
                parse(with_digest(document))


def fuzz_manifest(data: bytes) -> None:
    """A manifest."""
    fuzz_json(data, lambda document: Manifest.from_dict(document) if isinstance(document, dict) else None)


def fuzz_record(data: bytes) -> None:
    """A journal record."""
    fuzz_json(data, PartRecord.from_json)


def fuzz_completion(data: bytes) -> None:
    """A ``complete.json``."""
    with contextlib.suppress(RelabelStoreError):
        Completion.from_bytes(data)
    fuzz_json(data, lambda document: Completion.from_bytes(canonical_json(document)))


def fuzz_samples(data: bytes) -> None:
    """A sample table."""
    with contextlib.suppress(RelabelStoreError):
        from_parquet(data, SCHEMA)


def fuzz_image(data: bytes) -> None:
    """An image."""
    with contextlib.suppress(BadImageError):
        decode_image(data, size=(8, 8), interpolation=Interpolation.BILINEAR)


def fuzz_store(store: Path, name: str) -> Callable[[bytes], None]:
    """Put a file into a store, digests right, and read and validate that."""
    sound = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}

    def fuzz(data: bytes) -> None:
        forge_file(name, data, store)
        try:
            with contextlib.suppress(RelabelStoreError):
                opened = open_store(store)
                opened.read_rows(range(4))
            with contextlib.suppress(RelabelStoreError):
                open_store(store).load()
            with contextlib.suppress(RelabelStoreError):
                validate_store(store)
        finally:
            for path, content in sound.items():
                path.write_bytes(content)

    return fuzz


SHARD = "values/c/0/0/0/0"
TARGETS: dict[str, Callable[[], Callable[[bytes], None]]] = {
    "manifest": lambda: fuzz_manifest,
    "record": lambda: fuzz_record,
    "completion": lambda: fuzz_completion,
    "samples": lambda: fuzz_samples,
    "image": lambda: fuzz_image,
    "zarr-shard": lambda: fuzz_store(ZARR, SHARD),
    "zarr-array": lambda: fuzz_store(ZARR, "values/zarr.json"),
    "parquet-part": lambda: fuzz_store(PARQUET, "made-up-00000-of-00002.parquet"),
    "packed-part": lambda: fuzz_store(PACKED, "made-up-00000-of-00002.zip"),
}


def write_seeds(corpus: Path) -> None:
    """Write what each target begins with: files of a sound store."""
    manifest = canonical_json(make_manifest().to_dict())
    seeds = {
        "manifest": manifest,
        "record": (ZARR / "journal/part-00000.json").read_bytes(),
        "completion": (ZARR / "complete.json").read_bytes(),
        "samples": (ZARR / "samples.parquet").read_bytes(),
        "zarr-shard": (ZARR / SHARD).read_bytes(),
        "zarr-array": (ZARR / "values/zarr.json").read_bytes(),
        "parquet-part": (PARQUET / "made-up-00000-of-00002.parquet").read_bytes(),
        "packed-part": (PACKED / "made-up-00000-of-00002.zip").read_bytes(),
    }
    for target, data in seeds.items():
        (corpus / target).mkdir(parents=True, exist_ok=True)
        (corpus / target / "sound").write_bytes(data)


def do_not_wait(_: int) -> None:
    """Stand in for ``os.fsync``: these stores need not survive a power cut."""


def main() -> None:
    """Run one target."""
    for path in (ZARR, PARQUET, PACKED):
        make_store(path, np.random.default_rng(0), make_manifest(encoding=path.name))
    try:
        if sys.argv[1:2] == ["seeds"]:
            write_seeds(Path(sys.argv[2]))
            return
        if sys.argv[1:2] == [] or sys.argv[1] not in TARGETS:
            sys.exit(f"usage: python fuzz/harness.py {'|'.join(TARGETS)} [options] [corpus]")
        atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]]())
        atheris.Fuzz()
    finally:
        shutil.rmtree(WORK, ignore_errors=True)


if __name__ == "__main__":
    os.fsync = do_not_wait  # type: ignore[assignment]
    main()

"""A made-up store to read, to damage and to crash."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relabel_store import spec
from relabel_store.labels.maps import LabelMaps
from relabel_store.manifest import Manifest
from relabel_store.store.encodings import ENCODINGS
from relabel_store.testing import make_manifest, make_store
from relabel_store.testing.damage import forge_json

Change = Callable[[dict[str, Any]], object]


@dataclass(frozen=True)
class MadeStore:
    """A store on disk and what was written into it."""

    path: Path
    manifest: Manifest  # as it was when the store was begun
    maps: LabelMaps


@pytest.fixture(autouse=True)
def fsync_that_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up stores need not survive a power cut, and on a busy disk fsync is most of a test's time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, MadeStore]:
    """The same finished store in each encoding."""
    made = {}
    for encoding in ENCODINGS:
        path = tmp_path_factory.mktemp("original") / f"made.{encoding}"
        manifest = make_manifest(encoding=encoding)
        made[encoding] = MadeStore(path, manifest, make_store(path, np.random.default_rng(0), manifest))
    return made


@pytest.fixture
def encoding() -> str:
    """How stores of a test lie in files; tests that concern every encoding are parametrized with it."""
    return spec.ENCODING_ZARR


@pytest.fixture
def original(originals: dict[str, MadeStore], encoding: str) -> MadeStore:
    """A finished store that no test may touch."""
    return originals[encoding]


@pytest.fixture
def finished(original: MadeStore, tmp_path: Path) -> MadeStore:
    """A finished store of the test's own: 8 samples in 2 parts of 2 chunks."""
    path = tmp_path / "finished.zarr"
    shutil.copytree(original.path, path)
    return MadeStore(path, original.manifest, original.maps)


@pytest.fixture
def unfinished(tmp_path: Path, encoding: str) -> MadeStore:
    """A store of 8 samples whose second and last part is missing."""
    path = tmp_path / "unfinished.zarr"
    manifest = make_manifest(encoding=encoding)
    return MadeStore(path, manifest, make_store(path, np.random.default_rng(0), manifest, parts=[0]))


@pytest.fixture
def read_tree() -> Callable[[Path], dict[str, bytes]]:
    """Read every file below a folder; an empty folder counts as a file of its own."""

    def read(root: Path) -> dict[str, bytes]:
        tree = {}
        for path in sorted(root.rglob("*")):
            if path.is_file():
                tree[path.relative_to(root).as_posix()] = path.read_bytes()
            elif not any(path.iterdir()):
                tree[f"{path.relative_to(root).as_posix()}/"] = b""
        return tree

    return read


@pytest.fixture
def change_json() -> Callable[[Path, str, Change], None]:
    """Change a JSON file of a store the way a writer would have, so that its digests fit again."""

    return lambda store, name, edit: forge_json(name, edit, store)


class Killed(BaseException):
    """What a process that is dead raises at every further file operation."""


@pytest.fixture
def dying_at() -> Callable[[int], contextlib.AbstractContextManager[list[str]]]:
    """Let this process die before its file operation of a number: that one and all later ones do not happen.

    The block gets the list of the operations that did happen, as it grows.
    """

    @contextlib.contextmanager
    def dying(call: int) -> Iterator[list[str]]:
        done: list[str] = []

        def mortal(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
            def operate(*args: Any, **options: Any) -> Any:
                if len(done) >= call:
                    raise Killed
                done.append(f"{name} {args[-1]}")
                return operation(*args, **options)

            return operate

        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
            for name in ("fsync", "link", "mkdir", "replace", "rmdir", "unlink"):
                patch.setattr(os, name, mortal(name, getattr(os, name)))
            yield done

    return dying

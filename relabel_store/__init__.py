"""Dense teacher label maps for image classifiers: build them, open them, look at them, check them.

Importing this package loads neither torch nor zarr nor pyarrow; each name brings in what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from relabel_store.version import __version__

if TYPE_CHECKING:
    from relabel_store.convert.run import convert as convert
    from relabel_store.generate.build import build as build
    from relabel_store.labels.maps import LabelMap as LabelMap
    from relabel_store.labels.maps import LabelMaps as LabelMaps
    from relabel_store.manifest import Manifest as Manifest
    from relabel_store.store.reader import LabelStore as LabelStore
    from relabel_store.store.reader import open_store as open_store
    from relabel_store.validate.run import validate_store as validate_store

_HOMES = {
    "LabelMap": "relabel_store.labels.maps",
    "LabelMaps": "relabel_store.labels.maps",
    "LabelStore": "relabel_store.store.reader",
    "Manifest": "relabel_store.manifest",
    "build": "relabel_store.generate.build",
    "convert": "relabel_store.convert.run",
    "open_store": "relabel_store.store.reader",
    "validate_store": "relabel_store.validate.run",
}

__all__ = [
    "LabelMap",
    "LabelMaps",
    "LabelStore",
    "Manifest",
    "__version__",
    "build",
    "convert",
    "open_store",
    "validate_store",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

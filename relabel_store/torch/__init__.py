"""Training with label maps in PyTorch: which region a crop shows, and what to learn there.

Each name brings in what it needs, timm only for what is timm's.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relabel_store.torch.crops import CropBox as CropBox
    from relabel_store.torch.dataset import LabelDataset as LabelDataset
    from relabel_store.torch.digests import sample_ids_by_digest as sample_ids_by_digest
    from relabel_store.torch.images import SampleImages as SampleImages
    from relabel_store.torch.join import class_columns as class_columns
    from relabel_store.torch.mixup import SoftMixup as SoftMixup
    from relabel_store.torch.pooling import LabelPooling as LabelPooling
    from relabel_store.torch.pooling import Variant as Variant
    from relabel_store.torch.sparse import SparseSoftTargetCrossEntropy as SparseSoftTargetCrossEntropy
    from relabel_store.torch.sparse import SparseTargets as SparseTargets
    from relabel_store.torch.tracking import TrackedTransform as TrackedTransform
    from relabel_store.torch.tracking import as_tracked as as_tracked

_HOMES = {
    "CropBox": "relabel_store.torch.crops",
    "LabelDataset": "relabel_store.torch.dataset",
    "LabelPooling": "relabel_store.torch.pooling",
    "SampleImages": "relabel_store.torch.images",
    "SoftMixup": "relabel_store.torch.mixup",
    "SparseSoftTargetCrossEntropy": "relabel_store.torch.sparse",
    "SparseTargets": "relabel_store.torch.sparse",
    "TrackedTransform": "relabel_store.torch.tracking",
    "Variant": "relabel_store.torch.pooling",
    "as_tracked": "relabel_store.torch.tracking",
    "class_columns": "relabel_store.torch.join",
    "sample_ids_by_digest": "relabel_store.torch.digests",
}

__all__ = [
    "CropBox",
    "LabelDataset",
    "LabelPooling",
    "SampleImages",
    "SoftMixup",
    "SparseSoftTargetCrossEntropy",
    "SparseTargets",
    "TrackedTransform",
    "Variant",
    "as_tracked",
    "class_columns",
    "sample_ids_by_digest",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

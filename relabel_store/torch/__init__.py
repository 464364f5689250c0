"""Label maps in PyTorch training."""

from relabel_store.torch.pooling import LabelPooling, Variant
from relabel_store.torch.sparse import SparseSoftTargetCrossEntropy, SparseTargets

__all__ = ["LabelPooling", "SparseSoftTargetCrossEntropy", "SparseTargets", "Variant"]

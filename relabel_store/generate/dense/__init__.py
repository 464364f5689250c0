"""Classifiers made dense: their own head, replayed on each cell of the feature map."""

from relabel_store.generate.dense.classifier import DenseClassifier, identity_error, make_dense
from relabel_store.generate.dense.head import Variant
from relabel_store.generate.dense.kind import DenseKind

__all__ = ["DenseClassifier", "DenseKind", "Variant", "identity_error", "make_dense"]

"""The published test vectors of LabelPooling, as arrays: ``docs/reference/pooling-vectors.md``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relabel_store.labels.pooling import Variant
from relabel_store.labels.topk import IndexArray
from relabel_store.schema import load_document

NAME = "pooling-vectors-v1"


@dataclass(frozen=True)
class PoolingVector:
    """Label maps, crop boxes and settings, and what has to come out.

    Parameters
    ----------
    indices, values, boxes_xyxy, num_classes, rest, output_size, temperature, variant, classes, hflip, vflip, \
legacy_xy_swap
        As for `relabel_store.labels.pooling.soft_targets`; `values` and `rest` in float16.
    logits, targets
        float64 ``(n, num_targets)``, or ``(n, num_targets, *output_size)`` of more than one cell: before and
        after temperature and softmax.
    atol, rtol
        How far off a number may be: `atol` plus `rtol` times the number itself.
    """

    name: str
    about: str
    num_classes: int
    output_size: tuple[int, int]
    temperature: float
    variant: Variant
    legacy_xy_swap: bool
    classes: tuple[int, ...] | None
    indices: IndexArray
    values: NDArray[np.float16]
    rest: NDArray[np.float16] | None
    boxes_xyxy: NDArray[np.float32]
    hflip: NDArray[np.bool_] | None
    vflip: NDArray[np.bool_] | None
    logits: NDArray[np.float64]
    targets: NDArray[np.float64]
    atol: float
    rtol: float

    def __str__(self) -> str:
        return self.name


def load_pooling_vectors() -> list[PoolingVector]:
    """Return every published vector."""
    document = load_document(f"{NAME}.json")
    tolerance = document["tolerance"]
    return [
        _parse(case, atol=tolerance["absolute"], rtol=tolerance["relative"]) for case in document["cases"]
    ]


def _parse(case: dict[str, Any], *, atol: float, rtol: float) -> PoolingVector:
    def optional(name: str, dtype: Any) -> Any:
        return None if case[name] is None else np.array(case[name], dtype)

    return PoolingVector(
        name=case["name"],
        about=case["about"],
        num_classes=case["num_classes"],
        output_size=(case["output_size"][0], case["output_size"][1]),
        temperature=case["temperature"],
        variant=Variant(case["variant"]),
        legacy_xy_swap=case["legacy_xy_swap"],
        classes=None if case["classes"] is None else tuple(case["classes"]),
        indices=np.array(case["indices"], case["index_dtype"]),
        values=np.array(case["values"], np.float16),
        rest=optional("rest", np.float16),
        boxes_xyxy=np.array(case["boxes_xyxy"], np.float32),
        hflip=optional("hflip", np.bool_),
        vflip=optional("vflip", np.bool_),
        logits=np.array(case["logits"]),
        targets=np.array(case["targets"]),
        atol=atol,
        rtol=rtol,
    )

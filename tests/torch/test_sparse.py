from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from relabel_store.labels.topk import top_k
from relabel_store.torch.pooling import LabelPooling
from relabel_store.torch.sparse import SparseSoftTargetCrossEntropy, SparseTargets


def make_case(seed: int, *, n: int = 4, num_classes: int = 12) -> tuple[list[Tensor], Tensor]:
    rng = np.random.default_rng(seed)
    scores = rng.normal(3, 4, (n, num_classes, 3, 4)).astype(np.float32)
    indices, values = top_k(scores, min(3, num_classes))
    rest = rng.normal(0, 2, (n, 3, 4)).astype(np.float32)
    corners = rng.uniform(0, 0.6, (n, 2))
    boxes = np.concatenate([corners, corners + 0.3], axis=1).astype(np.float32)
    maps = [torch.from_numpy(array) for array in (indices, values, boxes, rest)]
    return maps, torch.from_numpy(rng.normal(0, 3, (n, num_classes)))


@settings(max_examples=50)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 4),
    num_classes=st.integers(2, 40),
    has_rest=st.booleans(),
    temperature=st.sampled_from([1.0, 0.5, 4.0]),
    selects=st.booleans(),
)
def test_sparse_targets_are_the_dense_ones(
    seed: int, n: int, num_classes: int, has_rest: bool, temperature: float, selects: bool
) -> None:
    (indices, values, boxes, rest), _ = make_case(seed, n=n, num_classes=num_classes)
    chosen = list(range(num_classes - 1, -1, -2)) if selects else None
    pool = LabelPooling(num_classes, temperature=temperature, classes=chosen)
    left = rest if has_rest else None
    targets = pool.sparse(indices, values, boxes, left)
    torch.testing.assert_close(targets.dense(), pool(indices, values, boxes, left), atol=1e-6, rtol=1e-5)


def test_each_class_is_listed_once() -> None:
    (indices, values, boxes, _), _ = make_case(1)
    for row, listed in enumerate(LabelPooling(12).sparse(indices, values, boxes).indices):
        found = sorted(set(listed.tolist()) - {0})
        assert found == sorted(set(indices[row].flatten().tolist()) - {0})


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), reduction=st.sampled_from(["mean", "sum", "none"]))
def test_loss_and_gradient_are_those_of_the_dense_targets(seed: int, reduction: str) -> None:
    (indices, values, boxes, rest), logits = make_case(seed)
    pool = LabelPooling(12)
    targets = pool.sparse(indices, values, boxes, rest)
    logits.requires_grad_()
    found = SparseSoftTargetCrossEntropy(reduction)(logits, targets)
    expected = functional.cross_entropy(logits, targets.dense().double(), reduction=reduction)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad(loss.sum(), logits)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-5)


def test_gradient_is_the_difference_quotient() -> None:
    (indices, values, boxes, _), logits = make_case(3)
    targets = LabelPooling(12).sparse(indices, values, boxes)
    assert torch.autograd.gradcheck(
        lambda logits: SparseSoftTargetCrossEntropy()(logits, targets), (logits.requires_grad_(),)
    )


def test_half_precision_logits_give_a_float32_loss() -> None:
    (indices, values, boxes, _), logits = make_case(3)
    targets = LabelPooling(12).sparse(indices, values, boxes)
    assert SparseSoftTargetCrossEntropy()(logits.bfloat16(), targets).dtype == torch.float32


def test_an_impossible_box_gives_a_loss_that_is_nan() -> None:
    (indices, values, boxes, _), logits = make_case(3)
    boxes[1] = torch.tensor([0.9, 0.0, 0.1, 1.0])
    losses = SparseSoftTargetCrossEntropy("none")(logits, LabelPooling(12).sparse(indices, values, boxes))
    assert losses.isnan().tolist() == [False, True, False, False]


def test_no_large_tensor_is_needed_for_many_classes() -> None:
    (indices, values, boxes, _), _ = make_case(3)
    targets = LabelPooling(100_000).sparse(indices, values, boxes)
    assert targets.indices.shape[1] <= 3 * 3 * 4


@pytest.mark.parametrize("settings", [{"output_size": (2, 2)}, {"variant": "localized-single"}], ids=str)
def test_targets_that_are_not_sparse_are_refused(settings: dict[str, object]) -> None:
    (indices, values, boxes, _), _ = make_case(3)
    with pytest.raises(ValueError, match="sparse targets: "):
        LabelPooling(12, **settings).sparse(indices, values, boxes)  # type: ignore[arg-type]


def test_a_model_of_another_class_count_is_refused() -> None:
    (indices, values, boxes, _), _ = make_case(0)
    targets = LabelPooling(12).sparse(indices, values, boxes)
    with pytest.raises(ValueError, match=r"logits: \(4, 1000\), expected \(4, 12\) as the targets have"):
        SparseSoftTargetCrossEntropy()(torch.zeros(4, 1000), targets)


def test_another_reduction_is_refused() -> None:
    with pytest.raises(ValueError, match="reduction: 'median'"):
        SparseSoftTargetCrossEntropy("median")


def test_targets_move_between_devices() -> None:
    targets = SparseTargets(torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2), torch.ones(1), 3)
    *moved, num_classes = targets.to("meta")
    assert {part.device.type for part in moved} == {"meta"}
    assert num_classes == 3

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from relabel_store.generate.reduce import keep_top_k
from relabel_store.labels.topk import top_k


@st.composite
def logits_with_ties(draw: st.DrawFn) -> np.ndarray:
    shape = (
        draw(st.integers(1, 3)),
        draw(st.integers(2, 9)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
    )
    return draw(hnp.arrays(np.float32, shape, elements=st.sampled_from([-2.0, -0.5, 0.0, 0.5, 1.0, 7.25])))


@given(scores=logits_with_ties(), data=st.data())
def test_top_k_on_the_device_equals_sorting_every_class(scores: np.ndarray, data: st.DataObject):
    k = data.draw(st.integers(1, scores.shape[1]))
    kept = keep_top_k(torch.from_numpy(scores), k, with_rest=False)
    indices, values = top_k(scores, k)
    assert kept.rest is None
    np.testing.assert_array_equal(kept.values.numpy(), values)
    # Ties inside the top k are put in order when the stored values are; their classes are the same.
    np.testing.assert_array_equal(np.sort(kept.indices.numpy(), axis=1), np.sort(indices, axis=1))


@given(scores=logits_with_ties(), data=st.data())
def test_rest_is_the_log_sum_exp_of_the_classes_not_kept(scores: np.ndarray, data: st.DataObject):
    k = data.draw(st.integers(1, scores.shape[1]))
    kept = keep_top_k(torch.from_numpy(scores), k, with_rest=True)
    n, num_classes, n_rows, n_cols = scores.shape
    for sample in range(n):
        for row in range(n_rows):
            for col in range(n_cols):
                chosen = set(kept.indices[sample, :, row, col].tolist())
                left = [scores[sample, c, row, col] for c in range(num_classes) if c not in chosen]
                expected = np.log(np.sum(np.exp(np.array(left, np.float64)))) if left else -np.inf
                assert kept.rest[sample, row, col].item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_logits_of_low_precision_are_compared_in_float32():
    scores = torch.randn((2, 40, 3, 3), generator=torch.Generator().manual_seed(0))
    kept = keep_top_k(scores.bfloat16(), 5, with_rest=False)
    indices, values = top_k(scores.bfloat16().float().numpy(), 5)
    assert kept.values.dtype == torch.float32
    np.testing.assert_array_equal(kept.values.numpy(), values)
    np.testing.assert_array_equal(np.sort(kept.indices.numpy(), axis=1), np.sort(indices, axis=1))


@pytest.mark.parametrize("is_channels_last", [False, True], ids=["NCHW", "NHWC"])
def test_logits_are_left_as_they_were(is_channels_last: bool):
    logits = torch.randn((1, 7, 2, 2), generator=torch.Generator().manual_seed(0))
    if is_channels_last:  # then the reduction works on the very memory of the logits
        logits = logits.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    before = logits.clone()
    keep_top_k(logits, 3, with_rest=True)
    assert torch.equal(logits, before)


def test_nan_is_among_what_is_kept():
    scores = torch.zeros((1, 9, 1, 1))
    scores[0, 6] = torch.nan
    assert torch.isnan(keep_top_k(scores, 2, with_rest=False).values).any()

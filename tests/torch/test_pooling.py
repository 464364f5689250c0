from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import roi_align

from relabel_store.errors import BoxError
from relabel_store.labels.pooling import Variant, soft_targets
from relabel_store.labels.topk import top_k
from relabel_store.labels.vectors import PoolingVector, load_pooling_vectors
from relabel_store.torch.pooling import LabelPooling


def make_maps(
    rng: np.random.Generator, n: int, num_classes: int, k: int, grid: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    indices, values = top_k(rng.normal(3, 4, (n, num_classes, *grid)).astype(np.float32), k)
    rest = rng.normal(1, 2, (n, *grid)).astype(np.float16)
    return torch.from_numpy(indices), torch.from_numpy(values), torch.from_numpy(rest)


def make_boxes(rng: np.random.Generator, n: int) -> Tensor:
    """Boxes inside the image, smaller than a cell, touching its border, and leaving it."""
    sizes = rng.choice([0.01, 0.2, 0.6, 1.0, 1.5], (n, 2)) * rng.uniform(0.5, 1, (n, 2))
    corners = rng.uniform(-0.4, 1.0, (n, 2))
    corners = np.where(rng.random((n, 2)) < 0.2, np.round(corners), corners)
    return torch.from_numpy(np.concatenate([corners, np.minimum(corners + sizes, 2)], axis=1)).float()


def dense_pooling(
    indices: Tensor, values: Tensor, boxes: Tensor, num_classes: int, output_size: tuple[int, int]
) -> Tensor:
    """torchvision's RoIAlign on the dense map, as the published training code does it, with x first."""
    n, _, n_rows, n_cols = indices.shape
    dense = torch.zeros(n, num_classes, n_rows, n_cols).scatter_(1, indices.long(), values.float())
    scaled = boxes * torch.tensor([n_cols, n_rows, n_cols, n_rows]) - 0.5
    rois = torch.cat([torch.arange(n)[:, None], scaled], dim=1)
    pooled = roi_align(dense, rois, output_size, spatial_scale=1.0, sampling_ratio=-1, aligned=False)
    return pooled[:, :, 0, 0] if output_size == (1, 1) else pooled


@pytest.mark.parametrize("output_size", [(1, 1), (14, 14), (2, 5)], ids=str)
@pytest.mark.parametrize("grid", [(15, 15), (7, 12), (1, 3)], ids=str)
def test_pooling_is_torchvisions_roi_align(
    grid: tuple[int, int], output_size: tuple[int, int], rng: np.random.Generator
) -> None:
    n, num_classes = 400, 20
    indices, values, _ = make_maps(rng, n, num_classes, 5, grid)
    boxes = make_boxes(rng, n)
    pool = LabelPooling(num_classes, output_size)
    expected = dense_pooling(indices, values, boxes, num_classes, output_size)
    torch.testing.assert_close(pool.logits(indices, values, boxes), expected, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(pool(indices, values, boxes), expected.softmax(1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("vector", load_pooling_vectors(), ids=str)
def test_pooling_gives_the_published_numbers(vector: PoolingVector) -> None:
    pool = LabelPooling(
        vector.num_classes,
        vector.output_size,
        vector.temperature,
        vector.variant,
        vector.legacy_xy_swap,
        classes=vector.classes,
        check=True,
    )
    given = {
        name: None if array is None else torch.from_numpy(array)
        for name in ("indices", "values", "boxes_xyxy", "rest", "hflip", "vflip")
        for array in [getattr(vector, name)]
    }
    for found, expected in ((pool.logits(**given), vector.logits), (pool(**given), vector.targets)):
        torch.testing.assert_close(
            found.double(), torch.from_numpy(expected), atol=vector.atol, rtol=vector.rtol
        )


@pytest.mark.parametrize("has_rest", [False, True], ids=["zero", "rest"])
@pytest.mark.parametrize("variant", list(Variant), ids=str)
@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 3),
    num_classes=st.integers(2, 9),
    grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    output_size=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    temperature=st.sampled_from([1.0, 0.5, 3.0]),
)
def test_pooling_is_the_reference(
    variant: Variant,
    has_rest: bool,
    seed: int,
    n: int,
    num_classes: int,
    grid: tuple[int, int],
    output_size: tuple[int, int],
    temperature: float,
) -> None:
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, num_classes + 1))
    indices, values, rest = make_maps(rng, n, num_classes, k, grid)
    boxes, left = make_boxes(rng, n), rest if has_rest else None
    hflip, vflip = torch.from_numpy(rng.integers(0, 2, (2, n)).astype(bool))
    classes = rng.permutation(num_classes)[: rng.integers(1, num_classes + 1)] if rng.integers(2) else None
    swap = bool(rng.integers(2))
    pool = LabelPooling(num_classes, output_size, temperature, variant, swap, classes=classes)
    expected = soft_targets(
        indices.numpy(),
        values.numpy(),
        boxes.numpy(),
        num_classes=num_classes,
        rest=None if left is None else left.numpy(),
        output_size=output_size,
        temperature=temperature,
        variant=variant,
        classes=classes,
        hflip=hflip.numpy(),
        vflip=vflip.numpy(),
        legacy_xy_swap=swap,
    )
    found = pool(indices, values, boxes, left, hflip, vflip)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.from_numpy(expected), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "index_dtype", [torch.uint16, torch.int16, torch.int32, torch.int64, torch.uint32], ids=str
)
@pytest.mark.parametrize(
    "value_dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str
)
def test_any_dtype_gives_float32(
    index_dtype: torch.dtype, value_dtype: torch.dtype, rng: np.random.Generator
) -> None:
    indices, values, rest = make_maps(rng, 4, 6, 3, (3, 3))
    values = values.bfloat16().float()  # what every one of the types holds
    boxes = make_boxes(rng, 4)
    pool = LabelPooling(6)
    expected = pool(indices, values, boxes, rest)
    found = pool(indices.to(index_dtype), values.to(value_dtype), boxes.double(), rest)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


def test_inputs_are_left_alone(rng: np.random.Generator) -> None:
    given = [*make_maps(rng, 3, 6, 3, (3, 3))[:2], make_boxes(rng, 3)]
    copies = [tensor.clone() for tensor in given]
    LabelPooling(6, temperature=2)(*given)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(given, copies, strict=True))


@pytest.mark.parametrize("n", [0, 1, 65, 130])
@pytest.mark.parametrize("output_size", [(1, 1), (2, 2)], ids=str)
def test_every_batch_size_gives_what_single_crops_give(
    n: int, output_size: tuple[int, int], rng: np.random.Generator
) -> None:
    indices, values, _ = make_maps(rng, n, 6, 3, (4, 4))
    boxes = make_boxes(rng, n)
    pool = LabelPooling(6, output_size)
    together = pool(indices, values, boxes)
    assert len(together) == n
    for row in range(n):
        alone = pool(indices[row : row + 1], values[row : row + 1], boxes[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone)


@pytest.mark.parametrize("num_classes", [2, 1000, 100_000])
def test_class_counts(num_classes: int, rng: np.random.Generator) -> None:
    indices = torch.from_numpy(
        rng.permuted(np.arange(18) * (num_classes // 20) if num_classes > 2 else np.arange(18) % 2)
    ).view(1, 2, 3, 3)
    values = torch.rand(1, 2, 3, 3)
    targets = LabelPooling(num_classes)(indices, values, torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
    assert targets.shape == (1, num_classes)
    torch.testing.assert_close(targets.sum(1), torch.ones(1), atol=1e-4, rtol=0)


def test_a_student_with_some_of_the_classes_gets_the_softmax_over_these(rng: np.random.Generator) -> None:
    indices, values, rest = make_maps(rng, 5, 9, 4, (3, 4))
    boxes, chosen = make_boxes(rng, 5), [7, 0, 3]
    every = LabelPooling(9).logits(indices, values, boxes, rest)
    some = LabelPooling(9, classes=chosen)
    torch.testing.assert_close(some.logits(indices, values, boxes, rest), every[:, chosen])
    torch.testing.assert_close(some(indices, values, boxes, rest), every[:, chosen].softmax(1))
    assert some.num_targets == 3


def test_a_mirrored_crop_mirrors_the_tokens_only(rng: np.random.Generator) -> None:
    indices, values, _ = make_maps(rng, 3, 6, 3, (5, 5))
    boxes, hflip = make_boxes(rng, 3), torch.tensor([True, False, True])
    tokens = LabelPooling(6, (2, 4))
    plain = tokens(indices, values, boxes)
    mirrored = torch.where(hflip[:, None, None, None], plain.flip(3), plain)
    upside_down = torch.where(hflip[:, None, None, None], plain.flip(2), plain)
    assert torch.equal(tokens(indices, values, boxes, hflip=hflip), mirrored)
    assert torch.equal(tokens(indices, values, boxes, vflip=hflip), upside_down)
    label = LabelPooling(6)
    assert torch.equal(label(indices, values, boxes, hflip=hflip), label(indices, values, boxes))


def test_the_top_right_crop_pools_the_top_right_of_the_map() -> None:
    indices = torch.zeros(1, 1, 4, 4, dtype=torch.long)
    indices[:, :, :2, 2:] = 1
    values = torch.full((1, 1, 4, 4), 8.0)
    top_right = torch.tensor([[0.6, 0.0, 1.0, 0.4]])
    assert LabelPooling(3)(indices, values, top_right).argmax() == 1
    assert LabelPooling(3, legacy_xy_swap=True)(indices, values, top_right).argmax() == 0


def test_legacy_xy_swap_reads_the_box_as_published_code_does(rng: np.random.Generator) -> None:
    indices, values, _ = make_maps(rng, 30, 6, 3, (5, 5))
    boxes = make_boxes(rng, 30)
    swapped = LabelPooling(6, legacy_xy_swap=True)(indices, values, boxes)
    expected = dense_pooling(indices, values, boxes[:, [1, 0, 3, 2]], 6, (1, 1)).softmax(1)
    torch.testing.assert_close(swapped, expected, atol=1e-5, rtol=1e-5)


IMPOSSIBLE = {
    "mirrored": [0.9, 0.1, 0.2, 0.9],
    "flat": [0.1, 0.5, 0.9, 0.5],
    "nan": [0.1, 0.2, float("nan"), 0.9],
    "infinite": [0.1, -float("inf"), 0.9, 1.0],
    "pixels": [10.0, 20.0, 200.0, 180.0],
}


@pytest.mark.parametrize("box", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
@pytest.mark.parametrize(
    "pool",
    [LabelPooling(6), LabelPooling(6, (2, 2)), LabelPooling(6, variant="localized-single")],
    ids=["label", "tokens", "single"],
)
def test_an_impossible_box_gives_nan_and_nothing_else_does(
    pool: LabelPooling, box: list[float], rng: np.random.Generator
) -> None:
    indices, values, _ = make_maps(rng, 3, 6, 3, (4, 4))
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], box, [0.2, 0.2, 0.9, 0.9]])
    targets = pool(indices, values, boxes)
    assert targets[1].isnan().all()
    assert not targets[[0, 2]].isnan().any()


@pytest.mark.parametrize("box", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_check_names_an_impossible_box(box: list[float], rng: np.random.Generator) -> None:
    indices, values, _ = make_maps(rng, 1, 6, 3, (4, 4))
    with pytest.raises(BoxError, match="crop box 0"):
        LabelPooling(6, check=True)(indices, values, torch.tensor([box]))


def test_check_names_what_does_not_fit(rng: np.random.Generator) -> None:
    indices, values, rest = make_maps(rng, 2, 6, 3, (4, 4))
    boxes = make_boxes(rng, 2)
    pool = LabelPooling(6, check=True)
    with pytest.raises(ValueError, match="class index 6, expected 0 to 5"):
        pool(indices + 1, values, boxes)
    with pytest.raises(ValueError, match="expected both"):
        pool(indices, values[:, :2], boxes)
    with pytest.raises(ValueError, match="rest: "):
        pool(indices, values, boxes, rest[:1])
    with pytest.raises(ValueError, match="crop boxes: "):
        pool(indices, values, boxes[:1])


@pytest.mark.parametrize(
    "settings",
    [
        {"num_classes": 0},
        {"num_classes": 5, "output_size": (0, 1)},
        {"num_classes": 5, "temperature": 0},
        {"num_classes": 5, "temperature": float("nan")},
        {"num_classes": 5, "variant": "localised"},
        {"num_classes": 5, "classes": [1, 1]},
        {"num_classes": 5, "classes": [5]},
        {"num_classes": 5, "classes": []},
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|is not a valid|named twice"):
        LabelPooling(**settings)


@pytest.mark.parametrize("output_size", [(1, 1), (3, 3)], ids=str)
@pytest.mark.parametrize("classes", [None, [3, 1]], ids=["all", "some"])
def test_it_compiles_to_one_graph(
    output_size: tuple[int, int], classes: list[int] | None, rng: np.random.Generator
) -> None:
    indices, values, rest = make_maps(rng, 4, 6, 3, (5, 5))
    boxes = make_boxes(rng, 4)
    pool = LabelPooling(6, output_size, classes=classes)
    compiled = torch.compile(pool, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(indices, values, boxes, rest), pool(indices, values, boxes, rest))


@pytest.mark.parametrize("output_size", [(1, 1), (3, 3)], ids=str)
def test_nothing_waits_for_a_device(output_size: tuple[int, int], rng: np.random.Generator) -> None:
    """On the meta device, which holds no numbers, asking for one raises."""
    maps = [tensor.to("meta") for tensor in make_maps(rng, 4, 6, 3, (5, 5))]
    boxes = make_boxes(rng, 4).to("meta")
    pool = LabelPooling(6, output_size).to("meta")
    flips = torch.zeros(4, dtype=torch.bool, device="meta")
    assert pool(*maps[:2], boxes, maps[2], flips, flips).device.type == "meta"
    if output_size == (1, 1):
        assert pool.sparse(*maps[:2], boxes, maps[2]).absent.shape == (4,)


class LargestTensor(TorchDispatchMode):
    """Notes how many numbers the largest tensor has that an operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numel = max(self.numel, result.numel())
        return result


def test_the_dense_map_is_never_made(rng: np.random.Generator) -> None:
    n, num_classes, k, grid = 64, 3000, 5, (15, 15)
    indices = torch.from_numpy(rng.integers(0, num_classes, (n, k, *grid)))
    values, boxes = torch.rand(n, k, *grid), make_boxes(rng, n)
    with LargestTensor() as largest:
        LabelPooling(num_classes)(indices, values, boxes)
    assert largest.numel <= n * max(num_classes, k * grid[0] * grid[1])


@pytest.mark.parametrize("index", [6, 5535, -1])
@pytest.mark.parametrize("classes", [None, [3, 1]], ids=["all", "some"])
@pytest.mark.parametrize("output_size", [(1, 1), (3, 3)], ids=str)
def test_an_index_that_is_no_class_is_an_error_on_a_cpu(
    output_size: tuple[int, int], classes: list[int] | None, index: int, rng: np.random.Generator
) -> None:
    indices, values, _ = make_maps(rng, 4, 6, 3, (3, 3))
    indices = indices.long()
    indices[2, 1, 0, 0] = index
    pool = LabelPooling(6, output_size, classes=classes)
    with pytest.raises(ValueError, match=f"class index {index}, expected 0 to 5: a row without label"):
        pool(indices, values, make_boxes(rng, 4))
    if output_size == (1, 1):
        with pytest.raises(ValueError, match=f"class index {index}"):
            pool.sparse(indices, values, make_boxes(rng, 4))
    with pytest.raises(ValueError, match=f"class index {index}"):
        soft_targets(indices.numpy(), values.numpy(), make_boxes(rng, 4).numpy(), num_classes=6)


@pytest.mark.parametrize("index", [6, 5535, -1])
@pytest.mark.parametrize("classes", [None, [3, 1]], ids=["all", "some"])
@pytest.mark.parametrize("output_size", [(1, 1), (3, 3)], ids=str)
def test_an_index_that_is_no_class_makes_its_own_sample_nan_elsewhere(
    output_size: tuple[int, int],
    classes: list[int] | None,
    index: int,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # the steps of any other device
    indices, values, _ = make_maps(rng, 4, 6, 3, (3, 3))
    boxes, pool = make_boxes(rng, 4), LabelPooling(6, output_size, classes=classes)
    expected = pool(indices, values, boxes)
    indices = indices.long()
    indices[2, 1, 0, 0] = index
    found = pool(indices, values, boxes)
    assert found[2].isnan().all()
    others = [0, 1, 3]
    torch.testing.assert_close(found[others], expected[others])
    if output_size == (1, 1):
        sparse = pool.sparse(indices, values, boxes).dense()
        assert sparse[2].isnan().all()
        torch.testing.assert_close(sparse[others], expected[others])


def test_autocast_leaves_the_rest_alone(rng: np.random.Generator) -> None:
    indices, values, rest = make_maps(rng, 4, 6, 3, (5, 5))
    boxes, pool = make_boxes(rng, 4), LabelPooling(6)
    expected = pool.logits(indices, values, boxes, rest)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(pool.logits(indices, values, boxes, rest), expected)


def test_settings_show_in_the_repr() -> None:
    pool = LabelPooling(10, (2, 2), 0.5, "global-multi", legacy_xy_swap=True, classes=[1, 2])
    assert repr(pool) == (
        "LabelPooling(10, output_size=(2, 2), temperature=0.5, variant='global-multi', 2 selected, "
        "legacy_xy_swap=True)"
    )

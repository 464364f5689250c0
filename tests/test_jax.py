from __future__ import annotations

import doctest
import importlib
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from relabel_store.errors import BoxError
from relabel_store.labels import pooling as reference
from relabel_store.labels.topk import top_k
from relabel_store.labels.vectors import PoolingVector, load_pooling_vectors
from relabel_store.testing import make_store

jax = pytest.importorskip("jax", reason="needs the extra jax")
jnp = jax.numpy

from relabel_store.jax import axis_weights, pool_labels, soft_targets  # noqa: E402 - after what it needs

Maps = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
TOLERANCE = {"atol": 2e-5, "rtol": 1e-5}


def make_maps(rng: np.random.Generator, n: int, num_classes: int, k: int, grid: tuple[int, int]) -> Maps:
    indices, values = top_k(rng.normal(3, 4, (n, num_classes, *grid)).astype(np.float32), k)
    rest = rng.normal(1, 2, (n, *grid)).astype(np.float16)
    return indices.astype(np.uint16), values.astype(np.float16), rest


def make_boxes(rng: np.random.Generator, n: int) -> NDArray[np.float32]:
    """Boxes inside the image, smaller than a cell, touching its border, and leaving it."""
    sizes = rng.choice([0.01, 0.2, 0.6, 1.0, 1.5], (n, 2)) * rng.uniform(0.5, 1, (n, 2))
    corners = rng.uniform(-0.4, 1.0, (n, 2))
    corners = np.where(rng.random((n, 2)) < 0.2, np.round(corners), corners)
    return np.concatenate([corners, np.minimum(corners + sizes, 2)], axis=1).astype(np.float32)


@pytest.mark.parametrize("vector", load_pooling_vectors(), ids=str)
def test_pooling_gives_the_published_numbers(vector: PoolingVector) -> None:
    targets = soft_targets(
        vector.indices,
        vector.values,
        vector.boxes_xyxy,
        num_classes=vector.num_classes,
        rest=vector.rest,
        output_size=vector.output_size,
        temperature=vector.temperature,
        variant=vector.variant,
        classes=vector.classes,
        hflip=vector.hflip,
        vflip=vector.vflip,
        legacy_xy_swap=vector.legacy_xy_swap,
    )
    assert (targets.shape, targets.dtype) == (vector.targets.shape, jnp.float32)
    np.testing.assert_allclose(targets, vector.targets, atol=vector.atol, rtol=vector.rtol)


@pytest.mark.parametrize(
    ("grid", "output_size", "has_rest"),
    [((7, 5), (1, 1), False), ((1, 6), (2, 3), True), ((4, 4), (5, 5), False)],
    ids=["crop", "tokens, rest", "more tokens than cells"],
)
@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1))
def test_pooling_is_the_reference(
    grid: tuple[int, int], output_size: tuple[int, int], has_rest: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    indices, values, rest = make_maps(rng, 8, 9, 3, grid)
    boxes, (hflip, vflip) = make_boxes(rng, 8), rng.integers(0, 2, (2, 8)).astype(bool)
    given = {"rest": rest if has_rest else None, "output_size": output_size, "hflip": hflip, "vflip": vflip}
    expected = reference.pool_labels(indices, values, boxes, num_classes=9, **given)
    np.testing.assert_allclose(
        pool_labels(indices, values, boxes, num_classes=9, **given), expected, **TOLERANCE
    )


@pytest.mark.parametrize(("n_cells", "n_bins"), [(15, 1), (15, 14), (7, 3)])
def test_boxes_of_whole_pixels_get_as_many_sample_points_as_in_the_reference(
    n_cells: int, n_bins: int, rng: np.random.Generator
) -> None:
    # Many of these are a whole number of cells wide, where the last bit of a position decides.
    sides = rng.choice([375, 500, 30 * n_cells, 2048], 3000)
    widths = np.ceil(rng.random(3000) * sides)
    starts = np.floor(rng.random(3000) * (sides - widths + 1))
    start, stop = (starts / sides).astype(np.float32), ((starts + widths) / sides).astype(np.float32)
    expected = reference.axis_weights(start, stop, n_cells=n_cells, n_bins=n_bins)
    weights = jax.jit(jax.vmap(lambda start, stop: axis_weights(start, stop, n_cells=n_cells, n_bins=n_bins)))
    np.testing.assert_allclose(weights(start, stop), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("index_dtype", "value_dtype"),
    [("uint8", "bfloat16"), ("int32", "float32"), ("uint32", "float16"), ("int64", "float64")],
)
def test_any_dtype_gives_float32(index_dtype: str, value_dtype: str, rng: np.random.Generator) -> None:
    indices, values, _ = make_maps(rng, 2, 6, 3, (3, 3))
    values, boxes = np.round(values), make_boxes(rng, 2)
    expected = reference.soft_targets(indices, values, boxes, num_classes=6)
    found = soft_targets(
        indices.astype(index_dtype), values.astype(jnp.dtype(value_dtype)), boxes, num_classes=6
    )
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, **TOLERANCE)


def test_sixty_four_bits_change_nothing(rng: np.random.Generator) -> None:
    indices, values, rest = make_maps(rng, 2, 6, 3, (3, 3))
    boxes = make_boxes(rng, 2)
    expected = reference.soft_targets(indices, values, boxes, num_classes=6, rest=rest, output_size=(2, 2))
    with jax.enable_x64(True):
        found = soft_targets(
            jnp.asarray(indices, jnp.int64),
            jnp.asarray(values, jnp.float64),
            jnp.asarray(boxes, jnp.float64),
            num_classes=6,
            rest=rest,
            output_size=(2, 2),
        )
        assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, **TOLERANCE)


def test_it_goes_into_jit_and_under_vmap(rng: np.random.Generator) -> None:
    indices, values, rest = make_maps(rng, 4, 6, 3, (3, 4))
    boxes = make_boxes(rng, 4)
    expected = reference.soft_targets(indices, values, boxes, num_classes=6, rest=rest)

    def of_one(*given: Any) -> Any:
        indices, values, boxes, rest = (part[None] for part in given)
        return soft_targets(indices, values, boxes, num_classes=6, rest=rest)[0]

    np.testing.assert_allclose(jax.jit(jax.vmap(of_one))(indices, values, boxes, rest), expected, **TOLERANCE)


def test_the_example_in_the_docstring_runs() -> None:
    assert doctest.testmod(importlib.import_module("relabel_store.jax"), raise_on_error=True).attempted > 0


def test_no_samples_give_no_targets() -> None:
    maps = np.zeros((0, 2, 3, 3), np.uint16)
    targets = soft_targets(maps, maps.astype(np.float16), np.zeros((0, 4)), num_classes=5)
    assert targets.shape == (0, 5)


@pytest.mark.parametrize("output_size", [(1, 1), (14, 14)], ids=str)
def test_the_dense_map_is_never_made(output_size: tuple[int, int]) -> None:
    n, num_classes, grid = 4, 1000, (15, 15)
    shapes = [jax.ShapeDtypeStruct((n, 5, *grid), dtype) for dtype in (jnp.uint16, jnp.float16)] + [
        jax.ShapeDtypeStruct((n, 4), jnp.float32)
    ]
    traced = jax.make_jaxpr(
        lambda *given: soft_targets(*given, num_classes=num_classes, output_size=output_size)
    )(*shapes)
    sizes = list(sizes_of(traced.jaxpr))
    assert len(sizes) > 50
    answer_size, maps_size = n * num_classes * output_size[0] * output_size[1], n * 5 * 15 * 15
    assert max(sizes) == max(answer_size, maps_size)


def sizes_of(jaxpr: Any) -> Any:
    """Yield the number of elements of every array that is made on the way."""
    for equation in jaxpr.eqns:
        yield from (int(np.prod(made.aval.shape)) for made in equation.outvars)
        for parameter in equation.params.values():
            inner = getattr(parameter, "jaxpr", None)
            if inner is not None:
                yield from sizes_of(inner)


def test_a_box_or_class_in_numpy_arrays_that_cannot_be_is_refused(rng: np.random.Generator) -> None:
    indices, values, _ = make_maps(rng, 2, 6, 3, (3, 3))
    boxes = make_boxes(rng, 2)
    with pytest.raises(ValueError, match="class index 5, expected 0 to 4"):
        pool_labels(np.full_like(indices, 5), values, boxes, num_classes=5)
    with pytest.raises(BoxError, match="expected x0 < x1 and y0 < y1"):
        pool_labels(indices, values, boxes[:, ::-1], num_classes=6)


@pytest.mark.parametrize("variant", list(reference.Variant), ids=str)
def test_what_lies_on_a_device_gives_nan_of_its_own_sample(
    variant: reference.Variant, rng: np.random.Generator
) -> None:
    indices, values, _ = make_maps(rng, 6, 6, 3, (3, 3))
    boxes = np.tile(np.float32([0.1, 0.2, 0.6, 0.7]), (6, 1))
    expected = reference.soft_targets(indices, values, boxes, num_classes=6, variant=variant)
    wrong_classes = indices.astype(np.int32)
    wrong_classes[0, 1, 2, 0], wrong_classes[1, 0, 0, 0] = 6, -1
    boxes[2], boxes[3], boxes[4] = [0.5, 0, 0.5, 1], [0, np.nan, 1, 1], [0, 0, 224, 224]
    found = np.asarray(
        soft_targets(jnp.asarray(wrong_classes), values, jnp.asarray(boxes), num_classes=6, variant=variant)
    )
    bad = [0, 1, 2, 3, 4] if variant.is_localized else [0, 1]
    good = sorted(set(range(6)) - set(bad))
    assert np.isnan(found[bad]).all()
    np.testing.assert_allclose(found[good], expected[good], **TOLERANCE)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"boxes_xyxy": np.tile([0.0, 0.0, 1.0, 1.0], (2, 1))}, r"crop boxes: \(2, 4\), expected \(1, 4\)"),
        ({"values": np.zeros((1, 2, 3, 4))}, r"values \(1, 2, 3, 4\)"),
        ({"indices": np.zeros((1, 2, 3, 3))}, "indices are float64, expected integers"),
        ({"num_classes": 0}, "num_classes: 0"),
        ({"output_size": (0, 1)}, "output_size"),
        ({"temperature": -1.0}, "temperature: -1.0"),
        ({"variant": "nonsense"}, "nonsense"),
        ({"classes": [7]}, "classes: expected at least one, each from 0 to 4"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_what_does_not_fit_is_refused(changed: dict[str, Any], message: str) -> None:
    maps = np.zeros((1, 2, 3, 3), np.uint16)
    given = {"indices": maps, "values": maps.astype(np.float16), "boxes_xyxy": [[0, 0, 1, 1]]}
    with pytest.raises(ValueError, match=message):
        soft_targets(**{**given, "num_classes": 5, **changed})


PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "jax.md"
RUN_PAGE = """
import sys

import jax

def predict(parameters, pixels):
    return pixels.mean(axis=(1, 2)) @ parameters

if __name__ == "__main__":
    {page}
    batches = [next(iter(made)) for made in (in_this_process, batches)]
    for batch in batches:
        print({name: (part.shape, str(part.dtype)) for name, part in batch.items()})
    same = all((batches[0][name] == batches[1][name]).all() for name in batches[0])
    print(same, float(loss(jax.numpy.zeros((3, store.num_classes)), batches[0])))
    maps = grain.DataLoader(
        data_source=store,
        sampler=grain.samplers.IndexSampler(len(store), num_epochs=1, shuffle=True, seed=1),
        worker_count=1,
    )
    print(sorted(found.sample_id for found in maps) == store.samples["sample_id"].to_pylist())
"""


def test_the_page_feeds_a_training_step_from_worker_processes(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    pytest.importorskip("grain", reason="needs the extra jax")
    for sample_id in make_store(tmp_path / "labels.zarr", rng).sample_ids:
        path = tmp_path / "train" / f"{sample_id}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    page = "".join(blocks).replace("batch(256", "batch(4").replace("num_workers=8", "num_workers=1")
    page = page.replace("flags.FLAGS", "in_this_process = batches\nflags.FLAGS")
    script = tmp_path / "train.py"
    script.write_text(RUN_PAGE.replace("{page}", page.replace("\n", "\n    ")), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-P", script.name],
        cwd=tmp_path,
        env={**os.environ, "RELABEL_STORE_CACHE": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    first, second, same, source = done.stdout.splitlines()
    assert first == second
    assert "'pixels': ((4, 224, 224, 3), 'uint8')" in first
    assert "'indices': ((4, 2, 3, 3), 'uint16')" in first
    assert "'boxes_xyxy': ((4, 4), 'float32')" in first
    assert same.startswith(f"True {math.log(5):.4f}"), same  # of a network that knows nothing
    assert source == "True"


SHARDED = """
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from relabel_store.jax import soft_targets

mesh = Mesh(jax.devices(), ("batch",))
along = NamedSharding(mesh, PartitionSpec("batch"))
rng = np.random.default_rng(0)
given = [
    jax.device_put(part, along)
    for part in (
        rng.integers(0, 50, (8, 3, 5, 5)).astype(np.uint16),
        rng.random((8, 3, 5, 5)).astype(np.float16),
        np.tile(np.float32([0.1, 0.2, 0.8, 0.9]), (8, 1)),
        rng.random((8, 5, 5)).astype(np.float16),
    )
]
for output_size in ((1, 1), (3, 2)):
    pool = jax.jit(
        lambda i, v, b, r: soft_targets(i, v, b, rest=r, num_classes=50, output_size=output_size)
    )
    compiled = pool.lower(*given).compile().as_text()
    moved = [name for name in ("all-gather", "all-reduce", "all-to-all", "collective") if name in compiled]
    targets = pool(*given)
    print(len(jax.devices()), moved, targets.sharding.is_equivalent_to(along, targets.ndim))
"""


def test_a_sharded_batch_stays_where_it_is() -> None:
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", SHARDED],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["2 [] True"] * 2

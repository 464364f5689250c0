"""From crop to target in each framework that is installed, beside the dense map in the same framework.

    python benchmarks/frameworks.py [--batch 256] [--repeat 15]

Made-up maps of 15x15 cells, the best 5 of 1,000 classes, with a few that stand out in each; boxes as RandomResizedCrop
draws them. One core, CPU time, medians. The alternative makes the dense map (n, 1000, 15, 15) and pools that:
torchvision's ``roi_align``; TensorFlow's ``crop_and_resize`` to 15x15 points and their mean; JAX, which has neither,
multiplies by the weights of rows and columns that we computed, so that only the map itself is compared. With JAX it
also counts the boxes of whole pixels for which XLA, left alone, takes another number of sample points.

    uv venv .venv-frameworks && uv pip install --python .venv-frameworks '.[torch,jax,tensorflow]'

makes an environment with all of them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if hasattr(os, "sched_setaffinity"):  # before any library counts the cores
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import numpy as np
from machine import describe_machine

from relabel_store.labels.pooling import soft_targets
from relabel_store.labels.topk import top_k

NUM_CLASSES, K, GRID = 1000, 5, (15, 15)
Run = Callable[[], Any]
Given = tuple[np.ndarray, np.ndarray, np.ndarray]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=15)
    arguments = parser.parse_args()
    print(describe_machine(("numpy", "torch", "torchvision", "jax", "tensorflow")))
    given = make_batch(arguments.batch)
    expected = soft_targets(*given, num_classes=NUM_CLASSES)
    print("| us a crop | ours | dense map | ratio | largest difference from the reference, ours / dense |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, ours, dense in frameworks(given):
        answers = [np.asarray(run()) for run in (ours, dense) if run is not None]
        off = " / ".join(f"{np.abs(answer - expected).max():.0e}" for answer in answers)
        one = measure(ours, arguments.repeat) / arguments.batch * 1e6
        other = None if dense is None else measure(dense, 3) / arguments.batch * 1e6
        beside = "| | |" if other is None else f"| {other:.0f} | {other / one:.0f} |"
        print(f"| {name} | {one:.1f} {beside} {off} |", flush=True)
    if find_spec("jax"):
        count_contracted()


def make_batch(n: int) -> Given:
    """Return class indices, values and boxes."""
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 1, (n, NUM_CLASSES, *GRID)).astype(np.float32)
    scores[:, rng.permutation(NUM_CLASSES)[:8]] += rng.gamma(2, 3, (n, 8, 1, 1)).astype(np.float32)
    indices, values = top_k(scores, K)
    ratio, area = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), n)), rng.uniform(0.08, 1, n)
    sizes = np.minimum(np.stack([np.sqrt(area * ratio), np.sqrt(area / ratio)], 1), 1)
    corners = rng.uniform(0, 1, (n, 2)) * (1 - sizes)
    boxes = np.concatenate([corners, corners + sizes], 1).astype(np.float32)
    return indices.astype(np.uint16), values.astype(np.float16), boxes


def frameworks(given: Given) -> Iterator[tuple[str, Run, Run | None]]:
    """Yield name, ours and the dense alternative of every framework that is installed."""
    yield "NumPy, the reference", lambda: soft_targets(*given, num_classes=NUM_CLASSES), None
    if find_spec("torchvision"):
        yield "PyTorch", *in_torch(given)
    if find_spec("jax"):
        yield "JAX, jit", *in_jax(given)
    if find_spec("tensorflow"):
        yield "TensorFlow, tf.function", *in_tensorflow(given)


def in_torch(given: Given) -> tuple[Run, Run]:
    """Return ours and torchvision's."""
    import torch
    from torchvision.ops import roi_align

    from relabel_store.torch import LabelPooling

    torch.set_num_threads(1)
    pool, (indices, values, boxes) = LabelPooling(NUM_CLASSES), map(torch.from_numpy, given)
    scale = torch.tensor([GRID[1], GRID[0]] * 2)

    def dense() -> torch.Tensor:
        n = len(indices)
        scores = torch.zeros(n, NUM_CLASSES, *GRID).scatter_(1, indices.long(), values.float())
        rois = torch.cat([torch.arange(n)[:, None], boxes * scale - 0.5], 1)
        return roi_align(scores, rois, (1, 1), aligned=False)[:, :, 0, 0].softmax(1)

    return lambda: pool(indices, values, boxes), dense


def in_jax(given: Given) -> tuple[Run, Run]:
    """Return ours, and products with the dense map."""
    import jax
    import jax.numpy as jnp

    from relabel_store.jax import axis_weights
    from relabel_store.jax import soft_targets as ours

    on_device = [jnp.asarray(part) for part in given]
    pool = jax.jit(lambda *maps: ours(*maps, num_classes=NUM_CLASSES))

    def dense_one(indices: Any, values: Any, box: Any) -> Any:
        rows, cols = jnp.indices(GRID)
        scores = jnp.zeros((NUM_CLASSES, *GRID)).at[indices, rows, cols].set(values.astype(jnp.float32))
        down = axis_weights(box[1], box[3], n_cells=GRID[0], n_bins=1)[0]
        along = axis_weights(box[0], box[2], n_cells=GRID[1], n_bins=1)[0]
        return jax.nn.softmax(jnp.einsum("crk,r,k->c", scores, down, along))

    dense = jax.jit(jax.vmap(dense_one))
    return lambda: pool(*on_device).block_until_ready(), lambda: dense(*on_device).block_until_ready()


def count_contracted(n: int = 200_000, side: int = 500) -> None:
    """Print how often an axis gets other weights than in the reference, as ours and as XLA would compute it."""
    import jax
    import jax.numpy as jnp

    from relabel_store.jax import axis_weights as ours
    from relabel_store.labels.pooling import axis_weights

    rng = np.random.default_rng(0)
    widths = rng.integers(1, side, n)
    starts = (rng.random(n) * (side - widths)).astype(int)
    start, stop = (starts / side).astype(np.float32), ((starts + widths) / side).astype(np.float32)
    expected = axis_weights(start, stop, n_cells=GRID[1])

    def plain(start: Any, stop: Any) -> Any:
        first = start * GRID[1] - 0.5
        return jnp.ceil(jnp.maximum(stop * GRID[1] - 0.5 - first, 1))

    half = np.float32(0.5)
    sizes = (stop * np.float32(GRID[1]) - half) - (start * np.float32(GRID[1]) - half)
    moved = int((np.asarray(jax.jit(plain)(start, stop)) != np.ceil(np.maximum(sizes, 1))).sum())
    found = jax.jit(jax.vmap(lambda a, b: ours(a, b, n_cells=GRID[1], n_bins=1)))(start, stop)
    off = int((np.abs(found - expected).max(axis=(1, 2)) > 1e-5).sum())
    print(
        f"of {n:,} crops of whole pixels ({side} px), other sample points: {moved} by XLA alone, {off} of ours"
    )


def in_tensorflow(given: Given) -> tuple[Run, Run]:
    """Return ours, and the mean of points that TensorFlow samples from the dense map."""
    import tensorflow as tf

    from relabel_store.tensorflow import soft_targets as ours

    tensors = [tf.constant(part) for part in given]
    pool = tf.function(lambda *maps: ours(*maps, num_classes=NUM_CLASSES))
    cells = tf.constant([GRID[0], GRID[1]] * 2, tf.float32)

    @tf.function
    def dense(indices: Any, values: Any, boxes: Any) -> Any:
        n = indices.shape[0]
        sample, _, row, col = tf.meshgrid(*(tf.range(length) for length in (n, K, *GRID)), indexing="ij")
        at = tf.stack([sample, row, col, tf.cast(indices, tf.int32)], axis=-1)
        scores = tf.scatter_nd(at, tf.cast(values, tf.float32), [n, *GRID, NUM_CLASSES])
        # From edges of the box to centres of its first and last point, in units where the last cell is at 1.
        yxyx = tf.gather(boxes, [1, 0, 3, 2], axis=1) * cells - 0.5
        inset = (yxyx[:, 2:] - yxyx[:, :2]) / (2 * tf.constant(GRID, tf.float32))
        ends = tf.concat([yxyx[:, :2] + inset, yxyx[:, 2:] - inset], 1)
        ends = tf.clip_by_value(ends, 0, cells - 1) / (cells - 1)
        points = tf.image.crop_and_resize(scores, ends, tf.range(n), GRID)
        return tf.nn.softmax(tf.reduce_mean(points, axis=[1, 2]))

    return lambda: pool(*tensors).numpy(), lambda: dense(*tensors).numpy()


def measure(run: Run, repeat: int) -> float:
    """Return the median CPU seconds of a call."""
    run()
    found = []
    for _ in range(repeat):
        started = time.process_time()
        run()
        found.append(time.process_time() - started)
    return statistics.median(found)


if __name__ == "__main__":
    main()

"""Train an image classifier in JAX on a teacher's label maps, fed by Grain.

    python examples/train_jax.py imagenet/train l2.zarr --epochs 100

The network is a small one, so that this file needs nothing but JAX and Grain; put your own in its place. What
differs from any other training script is marked with (*).
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from PIL import Image

import relabel_store
from relabel_store.jax import soft_targets

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
WIDTHS = (32, 64, 128, 256)


class LabelledCrops:
    """Draws a crop of an image and reads the label map of the whole; goes to each worker process."""

    def __init__(self, images: Path, store: relabel_store.LabelStore, size: int) -> None:
        self.images, self.store, self.size = images, store, size

    def __call__(self, row: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        path = self.store.samples["path"][int(row)].as_py()
        with Image.open(self.images / path) as file:  # (*) as stored: no EXIF orientation
            image = file.convert("RGB")
        box = random_box(rng, image.width, image.height)
        crop = image.resize((self.size, self.size), Image.Resampling.BICUBIC, box=box)
        pixels = (np.asarray(crop, np.float32) / 255 - MEAN) / STD
        if rng.random() < 0.5:
            pixels = pixels[:, ::-1]  # (*) the label of a mirrored crop is the same
        found = self.store[int(row)]  # (*)
        maps = {"indices": found.indices, "values": found.values}
        if found.rest is not None:
            maps["rest"] = found.rest
        fractions = np.float32(box) / np.float32([image.width, image.height] * 2)
        return {"pixels": np.ascontiguousarray(pixels), "boxes_xyxy": fractions, **maps}


def random_box(rng: np.random.Generator, width: int, height: int) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom in pixels, as RandomResizedCrop draws them."""
    for _ in range(10):
        area = width * height * rng.uniform(0.08, 1)
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round(float(np.sqrt(area * ratio))), round(float(np.sqrt(area / ratio)))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    return 0, 0, width, height


def main() -> None:
    args = parse_arguments()
    store = relabel_store.open_store(args.store).materialize()  # (*) decoded once, shared by all processes
    rows = np.flatnonzero(store.has_labels(np.arange(len(store))))  # (*) not those of bad images
    if len(rows) < args.batch_size:
        raise SystemExit(f"{len(rows)} images do not fill one batch; use a smaller --batch-size")
    crops = (
        grain.MapDataset.source(rows)
        .seed(args.seed)
        .shuffle()
        .repeat(args.epochs if args.steps is None else None)
        .random_map(LabelledCrops(args.images, store, args.size))
        .batch(args.batch_size, drop_remainder=True)
        .to_iter_dataset()
    )
    if args.workers:
        flags.FLAGS.mark_as_parsed()  # Grain's own, which it looks at before it starts processes
        crops = crops.mp_prefetch(grain.MultiprocessingOptions(num_workers=args.workers))

    parameters = initialize(jax.random.key(args.seed), store.num_classes)
    momentum = jax.tree.map(jnp.zeros_like, parameters)
    step = jax.jit(partial(train_step, num_classes=store.num_classes), donate_argnums=(0, 1))
    started = time.perf_counter()
    for done, batch in enumerate(crops, 1):
        parameters, momentum, loss = step(parameters, momentum, batch, args.lr)
        if done % args.log_every == 0:
            speed = done * args.batch_size / (time.perf_counter() - started)
            print(f"step {done}: loss {loss:.3f} (of this batch), {speed:.0f} images/s", flush=True)
        if done == args.steps:
            break
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        leaves = jax.tree_util.tree_leaves_with_path(parameters)
        np.savez(args.out, **{jax.tree_util.keystr(path): leaf for path, leaf in leaves})


def train_step(parameters, momentum, batch, lr, *, num_classes):
    """Return parameters and momentum after a step of SGD, and the loss before it."""
    pixels, maps = batch["pixels"], {name: part for name, part in batch.items() if name != "pixels"}
    targets = soft_targets(**maps, num_classes=num_classes)  # (*) of what each crop shows, on the device

    def loss_of(parameters):
        return -(targets * jax.nn.log_softmax(predict(parameters, pixels))).sum(axis=-1).mean()

    loss, gradients = jax.value_and_grad(loss_of)(parameters)
    momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, gradients)
    return jax.tree.map(lambda p, m: p - lr * m, parameters, momentum), momentum, loss


def initialize(key, num_classes):
    """Return the parameters of a few strided convolutions and a linear layer."""
    shapes = [(3, 3, before, after) for before, after in zip((3, *WIDTHS), WIDTHS, strict=False)]
    keys = jax.random.split(key, len(shapes))
    convolutions = [
        {
            "kernel": jax.random.normal(key, shape) * (2 / np.prod(shape[:3])) ** 0.5,
            "bias": jnp.zeros(shape[3]),
        }
        for key, shape in zip(keys, shapes, strict=True)
    ]
    return {
        "convolutions": convolutions,
        "head": {"kernel": jnp.zeros((WIDTHS[-1], num_classes)), "bias": jnp.zeros(num_classes)},
    }


def predict(parameters, pixels):
    """Return logits ``(n, num_classes)`` of pictures ``(n, height, width, 3)``."""
    for layer in parameters["convolutions"]:
        pixels = jax.lax.conv_general_dilated(
            pixels, layer["kernel"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        pixels = jax.nn.relu(pixels + layer["bias"])
    return pixels.mean(axis=(1, 2)) @ parameters["head"]["kernel"] + parameters["head"]["bias"]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, help="folder that the store was built from")
    parser.add_argument("store", help="label store of these images")
    parser.add_argument("--size", type=int, default=128, help="pixels of the crops")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--steps", type=int, help="stop after so many, whatever the epochs")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--workers", type=int, default=8, help="processes that read and crop")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--out", type=Path, help="file for the weights (.npz)")
    return parser.parse_args()


if __name__ == "__main__":
    main()

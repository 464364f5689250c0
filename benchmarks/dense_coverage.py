"""Which timm architectures have a dense map: `make_dense` on the smallest model of every timm module.

Weights are random, and perturbed so that no layer is the identity it was initialised to. The table gives

- the identity error on random images, and with features to which noise of twice their deviation was added;
- where logits change most when pixels in the upper right of the image change, if it is somewhere else: maps
  that are transposed or flipped show here, and so do some models with attention over the whole image.

A module takes seconds on two cores, deepseek_vit and gemma4_vit take minutes; run some at a time with
``--modules 'e*'``.
"""

from __future__ import annotations

import argparse
import collections
import fnmatch
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import timm
import torch
from torch import Tensor, nn

from relabel_store.errors import RelabelStoreError
from relabel_store.generate.dense import DenseClassifier, identity_error, make_dense

NUM_CLASSES = 1000


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    module: str
    model: str
    outcome: str
    identity: str = ""
    detail: str = ""
    place: str = ""
    seconds: float = 0.0

    def markdown(self) -> str:
        """Return the line as Markdown."""
        cells = (self.module, self.model, self.outcome, self.identity, self.detail, self.place)
        return f"| {' | '.join(cells)} | {self.seconds:.1f} |"


def architectures(module: str) -> list[str]:
    """Return the architectures of a timm module that have published weights for 1000 classes, or else all."""
    names = timm.list_models(module=module)
    configs = {name: timm.get_pretrained_cfg(name) for name in names}
    return [n for n in names if configs[n] is not None and configs[n].num_classes == NUM_CLASSES] or names


def matching(names: list[str], patterns: str) -> list[str]:
    """Return the names that fit one of several shell patterns with commas between."""
    return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns.split(","))]


def smallest(module: str) -> str:
    """Return the architecture of a timm module with the fewest parameters that classifies images."""
    counts = {}
    for name in architectures(module):
        with torch.device("meta"):
            model = create(name)
        if getattr(model, "num_classes", None) == NUM_CLASSES:
            counts[name] = sum(parameter.numel() for parameter in model.parameters())
    return min(counts, key=lambda name: (counts[name], name))


def create(name: str) -> nn.Module:
    """Return a model with random weights; the encoders in some modules take no class count."""
    try:
        return timm.create_model(name, num_classes=NUM_CLASSES)
    except TypeError:
        return timm.create_model(name)


def perturb(model: nn.Module, generator: torch.Generator) -> None:
    """Move every weight and running mean away from where initialisation put it."""
    with torch.no_grad():
        for parameter in model.parameters():
            width = 0.1 if parameter.ndim < 2 else 0.02
            parameter.add_(width * torch.randn(parameter.shape, generator=generator))
        for module in model.modules():
            mean = getattr(module, "running_mean", None)
            if isinstance(mean, Tensor):
                mean.add_(0.1 * torch.randn(mean.shape, generator=generator))


def input_size(model: nn.Module) -> tuple[int, int]:
    """Return height and width of the images that the model was made for."""
    _, height, width = model.pretrained_cfg["input_size"]
    return height, width


@contextmanager
def noisy_features(model: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Add noise of twice their deviation to the features that the model computes; the same each time."""
    forward_features = model.forward_features
    state = generator.get_state()

    def noisy(images: Tensor, **masks: Any) -> Tensor:  # some models hand masks on, None for whole images
        features = forward_features(images, **masks)
        generator.set_state(state)
        return features + 2 * features.std() * torch.randn(features.shape, generator=generator)

    model.forward_features = noisy
    try:
        yield
    finally:
        model.forward_features = forward_features


def moved_place(dense: DenseClassifier, images: Tensor) -> str:
    """Return "" if pixels of the upper right change cells of the upper right most, else both cells."""
    (height, width), (n_rows, n_cols) = dense.input_size, dense.grid
    row, col = n_rows // 4, (3 * n_cols) // 4
    changed = images.clone()
    top, bottom = row * height // n_rows, (row + 1) * height // n_rows
    left, right = col * width // n_cols, (col + 1) * width // n_cols
    changed[:, :, top:bottom, left:right] *= -1
    change = (dense.logits(changed) - dense.logits(images)).abs().mean(dim=(0, 1))
    found = divmod(int(change.argmax()), n_cols)
    is_upper_right = 2 * found[0] < n_rows and 2 * found[1] >= n_cols - 1
    return "" if is_upper_right else f"{(row, col)} -> {found}"


def measure(module: str, name: str, seed: int) -> Row:
    """Return the line of one model."""
    start = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = create(name).eval()
    perturb(model, generator)
    try:
        dense = make_dense(model, input_size=input_size(model))
    except RelabelStoreError as error:
        return Row(module, name, type(error).__name__, detail=str(error), seconds=time.perf_counter() - start)
    images = torch.randn((2, 3, *dense.input_size), generator=generator)
    identity = identity_error(dense, images)
    with noisy_features(model, generator):
        noisy = identity_error(dense, images)
    return Row(
        module,
        name,
        dense.kind.value,
        f"{identity:.1e}",
        f"{noisy:.1e}",
        moved_place(dense, images),
        time.perf_counter() - start,
    )


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the block once it has taken so long."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"over {seconds} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def main() -> None:
    """Print the table and its totals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--modules", default="*", help="shell patterns, with commas between")
    parser.add_argument("--models", default=None, help="shell patterns: these models, not the smallest ones")
    parser.add_argument("--time-limit", type=int, default=300, help="seconds a model, default 300")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # timm's own, about names and devices
    print("| module | model | outcome | identity error | with noise, or reason | moved | s |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    totals: collections.Counter[str] = collections.Counter()
    for module in matching(timm.list_modules(), arguments.modules):
        models = arguments.models
        for name in matching(timm.list_models(module=module), models) if models else [smallest(module)]:
            try:
                with time_limit(arguments.time_limit):
                    row = measure(module, name, arguments.seed)
            except (TimeoutError, RuntimeError, AssertionError) as error:
                row = Row(module, name, "failed", detail=f"{type(error).__name__}: {error}")
            totals[row.outcome] += 1
            print(row.markdown(), flush=True)
    print()
    print(", ".join(f"{count} {outcome}" for outcome, count in totals.most_common()))


if __name__ == "__main__":
    main()

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relabel_store.store.reader import open_store

EXAMPLES = Path(__file__).parents[1] / "examples"


def run_example(program: Callable[..., Any], script: str, demo: Path, *arguments: str) -> str:
    settings = ["--steps", "3", "--batch-size", "4", "--workers", "1", "--log-every", "1"]
    environment = {**os.environ, "RELABEL_STORE_CACHE": str(demo.parent / "cache")}
    process = program(
        EXAMPLES / script,
        demo / "photos",
        demo / "labels.zarr",
        *settings,
        *arguments,
        environment=environment,
    )
    out, err = process.end()
    assert process.returncode == 0, err
    return str(out)


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("train_torchvision.py", ["--model", "resnet18", "--size", "64"]),
        (
            "train_torchvision.py",
            ["--model", "resnet18", "--size", "64", "--cutmix", "--amp", "--ema", "0.9"],
        ),
        ("train_timm.py", ["--model", "resnet18", "--img-size", "64"]),
        (
            "train_timm.py",
            [
                *("--model", "vit_tiny_patch16_224", "--img-size", "224", "--aa", "rand-m7-inc1"),
                *("--mixup", "0.2", "--cutmix", "1", "--amp", "--ema", "0.9"),
            ],
        ),
    ],
    ids=["torchvision", "torchvision with everything", "timm", "timm with everything"],
)
def test_an_example_trains_on_the_demo(
    program: Callable[..., Any], script: str, arguments: list[str], demo: Path, tmp_path: Path
) -> None:
    photos = sorted(path for path in (demo / "photos").iterdir() if path.suffix != ".txt")
    classes = list(open_store(demo / "labels.zarr").manifest.classes.index_of_folder())
    for name, photo in zip(classes, photos[:2], strict=False):
        (tmp_path / "val" / name).mkdir(parents=True)
        shutil.copy(photo, tmp_path / "val" / name)
    output = run_example(
        program,
        script,
        demo,
        *arguments,
        "--out",
        str(tmp_path / "new" / "weights.pt"),
        "--val",
        str(tmp_path / "val"),
    )
    losses = [float(loss) for loss in re.findall(r"loss ([0-9.]+)", output)]
    assert len(losses) == 3
    assert all(0 < loss < 20 for loss in losses)
    assert (tmp_path / "new" / "weights.pt").stat().st_size > 1_000_000
    assert re.search(r"^epoch 2: top-1 [0-9.]+%$", output, re.M)


@pytest.mark.parametrize(
    ("script", "library", "arguments"),
    [
        ("train_jax.py", "grain", ["--size", "32", "--out", "new/weights.npz"]),
        (
            "train_lightning.py",
            "lightning",
            ["--model", "resnet18", "--size", "64", "--seed", "7", "--out", "new/weights.pt"],
        ),
    ],
    ids=["JAX", "Lightning"],
)
def test_an_example_of_another_framework_trains_on_the_demo(
    script: str,
    library: str,
    arguments: list[str],
    program: Callable[..., Any],
    demo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"needs {library}")
    monkeypatch.chdir(tmp_path)
    losses = [
        float(loss) for loss in re.findall(r"loss ([0-9.]+)", run_example(program, script, demo, *arguments))
    ]
    assert len(losses) == 3
    assert all(0 < loss < 20 for loss in losses)
    assert next((tmp_path / "new").iterdir()).stat().st_size > 1_000_000


def test_a_batch_that_cannot_be_filled_is_said(program: Callable[..., Any], demo: Path) -> None:
    for script in ("train_torchvision.py", "train_timm.py"):
        require_refusal(program, script, demo, "--model", "resnet18")


@pytest.mark.slow
@pytest.mark.parametrize("script", ["train_jax.py", "train_lightning.py"])
def test_a_batch_that_cannot_be_filled_is_said_in_other_frameworks_too(
    script: str, program: Callable[..., Any], demo: Path
) -> None:
    require_refusal(program, script, demo)


def require_refusal(program: Callable[..., Any], script: str, demo: Path, *arguments: str) -> None:
    with pytest.raises(AssertionError, match="9 images do not fill one batch"):
        run_example(program, script, demo, *arguments, "--batch-size", "64")

"""The pipeline in ``docs/how-to/dali.md`` gives the region that its pictures show."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from relabel_store.testing import make_store
from relabel_store.torch import CropBox

pytest.importorskip("nvidia.dali", reason="needs nvidia-dali")

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "dali.md"
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1) * 255
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1) * 255
SIZES = [(60, 90), (90, 60), (75, 75), (50, 120)]


def page_blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def pipeline() -> Any:
    """Return the pipeline as the page has it."""
    names: dict[str, Any] = {}
    exec(page_blocks()[0], names)
    return names["training_pipeline"]


@pytest.mark.parametrize("painted", ["PIL"], indirect=True)
@pytest.mark.parametrize("orientation", [1, 6], ids=["upright", "EXIF says turned"])
def test_the_pixels_lie_where_the_box_says(
    painted: Any, off: Any, pipeline: Any, tmp_path: Path, orientation: int
):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    files = []
    for number, size in enumerate(SIZES):
        files.append(str(tmp_path / f"{number}.png"))
        painted(*size).save(files[-1], exif=exif)
    crops = pipeline(files, [10, 11, 12, 13], 48, "cpu", batch_size=4, num_threads=1, device_id=None, seed=1)
    crops.build()
    seen = set()
    for _ in range(20):
        images, rows, boxes, hflips = (np.asarray(output.as_tensor()) for output in crops.run())
        for image, row, box, hflip in zip(images, rows.ravel(), boxes, hflips.ravel(), strict=True):
            pixels = (torch.tensor(image) * STD + MEAN).round().byte().permute(1, 2, 0).numpy()
            tracked = CropBox(box, canvas_size=(48, 48), is_hflipped=bool(hflip))
            assert np.median(off(PIL.Image.fromarray(pixels), tracked, SIZES[row - 10])) < 0.01
            seen.add((int(row), bool(hflip)))
    assert len(seen) == 8


EXTERNAL = """
import sys
from pathlib import Path

import numpy as np
import relabel_store

{page}

if __name__ == "__main__":
    store = relabel_store.open_store("labels.zarr").materialize("cache")
    source = LabelledImages(Path("train"), store, 3)
    batches = labelled_pipeline(
        source, 24, "cpu", batch_size=3, num_threads=1, device_id=None, py_num_workers=2, py_start_method="spawn"
    )
    batches.build()
    for epoch in range(2):
        rows = []
        for _ in range(2):
            images, indices, values, boxes, hflips = (np.asarray(part.as_tensor()) for part in batches.run())
            assert images.shape == (3, 3, 24, 24) and boxes.shape == (3, 4)
            for found in zip(indices, values):
                (row,) = (r for r in range(8) if store.has_label(r) and (store[r].indices == found[0]).all()
                          and (store[r].values == found[1]).all())
                rows.append(row)
        try:
            batches.run()
        except StopIteration:
            batches.reset()
        else:
            raise AssertionError("an epoch of 7 images in batches of 3 has two")
        print(*rows)
"""


def test_label_maps_come_through_the_pipeline_from_worker_processes(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    for sample_id in make_store(tmp_path / "labels.zarr", rng, bad_images={3: "truncated"}).sample_ids:
        path = tmp_path / "train" / f"{sample_id}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(path)
    blocks = page_blocks()
    (tmp_path / "train.py").write_text(
        EXTERNAL.replace("{page}", f"{blocks[0]}\n\n{blocks[2]}"), encoding="utf-8"
    )
    done = subprocess.run(
        [sys.executable, "-P", "train.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    epochs = [line.split() for line in done.stdout.splitlines()]
    assert [len(set(rows)) for rows in epochs] == [6, 6]
    assert "3" not in epochs[0] + epochs[1]
    assert epochs[0] != epochs[1]

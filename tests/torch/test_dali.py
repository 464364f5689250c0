"""The pipeline in ``docs/how-to/dali.md`` gives the region that its pictures show."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from relabel_store.torch import CropBox

pytest.importorskip("nvidia.dali", reason="needs nvidia-dali")

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "dali.md"
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1) * 255
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1) * 255
SIZES = [(60, 90), (90, 60), (75, 75), (50, 120)]


@pytest.fixture
def pipeline() -> Any:
    """Return the pipeline as the page has it."""
    names: dict[str, Any] = {}
    exec(
        re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)[0],
        names,
    )
    return names["training_pipeline"]


@pytest.mark.parametrize("orientation", [1, 6], ids=["upright", "EXIF says turned"])
def test_the_pixels_lie_where_the_box_says(
    painted: Any, off: Any, pipeline: Any, tmp_path: Path, orientation: int
):
    if not isinstance(painted(50, 50), PIL.Image.Image):
        pytest.skip("files hold bytes")
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

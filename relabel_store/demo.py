"""The demo: a store of real photographs by a real teacher, all from installed packages."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from relabel_store.errors import MissingDependencyError, TargetExistsError
from relabel_store.generate.build import build
from relabel_store.generate.build_report import BuildReport
from relabel_store.generate.observer import BuildObserver
from relabel_store.images.recognise import open_images
from relabel_store.overlay import draw_sample, save_picture
from relabel_store.store.reader import open_store

TEACHER = "efficientnet_lite0"
INPUT_SIZE = 224  # pixels, as it was trained; at 448 the map is finer and the pooled targets nearly flat

_SKIMAGE = ("skimage", "data")
_SKLEARN = ("sklearn.datasets", "images")
_PHOTOS = {
    "astronaut.png": _SKIMAGE,
    "camera.png": _SKIMAGE,
    "chelsea.png": _SKIMAGE,
    "china.jpg": _SKLEARN,
    "coffee.png": _SKIMAGE,
    "coins.png": _SKIMAGE,
    "flower.jpg": _SKLEARN,
    "motorcycle_left.png": _SKIMAGE,
    "rocket.jpg": _SKIMAGE,
}


@dataclass(frozen=True)
class DemoReport:
    """What the demo made."""

    images: Path
    store: Path
    pictures: list[Path]
    build: BuildReport


def run_demo(directory: Path, observer: BuildObserver | None = None) -> DemoReport:
    """Copy photographs into a directory, label them, and draw their maps.

    Parameters
    ----------
    directory
        Gets ``photos/``, ``labels.zarr`` and ``pictures/``; what an earlier run left there is gone on with.

    Raises
    ------
    TargetExistsError
        The directory holds something else.
    MissingDependencyError
        A package with photographs, or the teacher's, is not installed.
    """
    strangers = sorted({path.name for path in directory.glob("*")} - {"photos", "labels.zarr", "pictures"})
    if strangers or (directory.is_dir() and any(directory.glob("photos/*/"))):
        raise TargetExistsError(
            f"demo {str(directory)!r}: holds {(strangers or ['photos in folders'])[0]!r}, which no demo made; "
            "choose a new directory"
        )
    images, store_path, pictures = directory / "photos", directory / "labels.zarr", directory / "pictures"
    for folder in (images, pictures):
        folder.mkdir(parents=True, exist_ok=True)
    for name, (package, folder_name) in _PHOTOS.items():
        with resources.as_file(_data(package) / folder_name / name) as photo:
            shutil.copyfile(photo, images / name)
    report = build(TEACHER, images, store_path, input_size=INPUT_SIZE, device="cpu", observer=observer)
    store, source = open_store(store_path), open_images(images)
    drawn = []
    for sample_id in source.sample_ids:
        drawn.append(pictures / f"{sample_id}.png")
        save_picture(draw_sample(store, sample_id, source), drawn[-1])
    return DemoReport(images, store_path, drawn, report)


def _data(package: str) -> Traversable:
    try:
        return resources.files(package)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"demo: {error.name} is not installed; pip install 'relabel-store[demo]'"
        ) from error

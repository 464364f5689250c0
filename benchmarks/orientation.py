"""How reliably photos tell which way up their label maps lie.

    python benchmarks/orientation.py PHOTOS MAPS.npz

PHOTOS is a source of images as `build` takes it; the file has arrays ``indices``, ``values`` and ``sample_id``. The
maps are turned in each of eight ways; then the way is to be told from some of the photos, drawn two hundred times.
"""

from __future__ import annotations

import io
import sys
import time

import numpy as np
from machine import describe_machine
from PIL import Image

from relabel_store.images.recognise import open_images
from relabel_store.labels.orientation import OrientationEvidence, Symmetry, compare_orientations

DRAWS = 200


def main() -> None:
    """Print how often the verdict is right, undecided and wrong."""
    photos, path = sys.argv[1:]
    source = open_images(photos)
    row_of = {sample_id: row for row, sample_id in enumerate(source.sample_ids)}
    with np.load(path) as file:
        indices, values, ids = file["indices"], file["values"], file["sample_id"].tolist()
    size = indices.shape[:1:-1]
    images = (Image.open(io.BytesIO(source.read(row_of[sample_id]))).convert("RGB") for sample_id in ids)
    colours = np.stack([np.asarray(image.resize(size, Image.Resampling.BOX)) for image in images])
    began = time.process_time()
    as_they_are = compare_orientations(indices, values, colours)
    seconds = (time.process_time() - began) / len(ids)
    print(describe_machine(), f"{len(ids)} photos, {seconds * 1e3:.2f} ms each beside decoding", sep="\n")
    for way in Symmetry:
        found = compare_orientations(way.apply(indices), way.apply(values), colours)
        is_right = found.verdict is way.inverse
        print(f"maps turned: {way.phrase:32} {'right' if is_right else 'WRONG'}: {found.describe()}")
    rng = np.random.default_rng(0)
    for count in (8, 12, 20, 30, 50, 100):
        verdicts = [
            OrientationEvidence(
                as_they_are.symmetries, as_they_are.correlations[rng.choice(len(ids), count, replace=False)]
            ).verdict
            for _ in range(DRAWS)
        ]
        right, undecided = verdicts.count(Symmetry.AS_IS), verdicts.count(None)
        print(
            f"{count:4} photos: right {right / DRAWS:6.1%}, undecided {undecided / DRAWS:6.1%}, "
            f"wrong {(DRAWS - right - undecided) / DRAWS:6.1%}"
        )


if __name__ == "__main__":
    main()

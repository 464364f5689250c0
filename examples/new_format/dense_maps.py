"""A form of labels: a folder NAME.dense with a file STEM.npy an image, its scores (num_classes, n_rows, n_cols)."""

from pathlib import Path

import numpy as np

from relabel_store.convert.sources.array_files import open_npy
from relabel_store.convert.sources.foreign_manifest import foreign_manifest, known_classes
from relabel_store.convert.sources.foreign_maps import damaged_rows, encode_part
from relabel_store.convert.sources.given_samples import samples_of_ids
from relabel_store.errors import LabelSourceError
from relabel_store.labels.topk import top_k
from relabel_store.manifest import AbsentRule
from relabel_store.spec import DEFAULT_K


def recognise(location) -> bool:
    return Path(location).suffix == ".dense" and Path(location).is_dir()


def open_source(location, options):
    options.require_only("dense", "value_step", "absent", "class_names")
    return DenseMaps(Path(location), options)


class DenseMaps:
    notes = ()

    def __init__(self, root, options):
        self._root = root
        ids = sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.npy"))
        if not ids:
            raise LabelSourceError(f"labels {root.name!r}: no .npy file, expected one for each image")
        self._shape = num_classes, n_rows, n_cols = open_npy(root / f"{ids[0]}.npy").shape
        self._given = samples_of_ids(f"labels {root.name!r}", ids)
        self.manifest = foreign_manifest(
            root.stem,
            ids,
            grid=(n_rows, n_cols),
            k=min(DEFAULT_K, num_classes),
            num_classes=num_classes,
            classes=known_classes(options.class_names, num_classes),
            options=options,
            order="sample-id",
        )
        self.samples = self._given.planned(self.manifest.classes.index_of_folder())

    def read_part(self, part):
        rows, label_map = self.manifest.rows_of_part(part), self.manifest.label_map
        scores = np.zeros((len(rows), *self._shape), np.float32)
        reasons = {}  # why a row has no label, by its position in the part
        for at, row in enumerate(rows):
            try:
                array = open_npy(self._root / f"{self._given.sample_ids[row]}.npy")
                if array.shape != self._shape:
                    raise LabelSourceError(f"{array.name}: shape {array.shape}, expected {self._shape}")
                scores[at] = array.read_all()
                if not np.isfinite(scores[at]).all():
                    raise LabelSourceError(f"{array.name}: NaN or infinity, expected scores")
            except LabelSourceError as error:
                reasons[at] = str(error)
                scores[at] = 0
        indices, values = top_k(scores, label_map.k)
        rest = None
        if label_map.absent is AbsentRule.REST:
            np.put_along_axis(scores, indices, -np.inf, axis=1)
            rest = np.logaddexp.reduce(scores, axis=1)
        too_large = damaged_rows(indices, values, rest, label_map.num_classes)  # for float16
        return encode_part(indices, values, rest, {**too_large, **reasons}, self.manifest, part)

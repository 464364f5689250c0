"""A form to convert into: a CSV file with a line for each image, and the best class of each cell."""

import csv

import numpy as np

from relabel_store.errors import OptionError

SUFFIXES = (".csv",)


def open_target(path):
    return WinnersCsv(path)


class WinnersCsv:
    is_sequential = True  # one file: parts are written in order by one process

    def __init__(self, path):
        self._path = path

    def begin(self, source):
        n_rows, n_cols = source.manifest.label_map.grid
        if n_rows * n_cols > 1000:
            raise OptionError(f"to 'winners': {n_rows * n_cols} cells, expected at most 1000 columns")
        with open(self._path, "w", newline="") as file:
            cells = [f"row{row}_col{col}" for row in range(n_rows) for col in range(n_cols)]
            csv.writer(file).writerow(["sample_id", *cells])
        return ["the best class of each cell is kept, and nothing else"]  # what users should know

    def write_part(self, manifest, part, samples, labels):
        with open(self._path, "a", newline="") as file:
            for at in np.flatnonzero(labels.is_labelled):
                best = labels.indices[at, 0]  # ranks are in order: the best first
                csv.writer(file).writerow([samples["sample_id"][int(at)].as_py(), *best.ravel()])

    def finish(self, manifest):
        pass

"""Made-up labels in layouts of others."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from relabel_store.convert import formats
from relabel_store.convert.into_files import Outcome, convert_into_files
from relabel_store.convert.observer import ConversionObserver
from relabel_store.labels.maps import LabelMaps
from relabel_store.testing import MadeUpLabels, make_manifest

Written = Callable[..., AbstractContextManager[Path]]


def write_labels(labels: MadeUpLabels, path: Path, form: str) -> Outcome:
    return convert_into_files(
        labels, path, form, formats.target_maker(form), workers=1, observer=ConversionObserver()
    )


@pytest.fixture(scope="session")
def write() -> Callable[[MadeUpLabels, Path, str], Outcome]:
    """Write labels in some form."""
    return write_labels


@pytest.fixture(scope="session")
def written() -> Written:
    """Write labels in some form, for as long as they are read."""

    @contextmanager
    def write_for_a_while(labels: MadeUpLabels, form: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "labels")
            write_labels(labels, path, form)
            yield path

    return write_for_a_while


def rename(labels: MadeUpLabels, sample_ids: list[str]) -> MadeUpLabels:
    maps = labels.maps
    return replace(labels, maps=LabelMaps(sample_ids, maps.indices, maps.values, maps.rest))


@pytest.fixture(scope="session")
def named() -> Callable[..., MadeUpLabels]:
    """Labels of samples with these ids."""

    def make(*sample_ids: str) -> MadeUpLabels:
        return rename(MadeUpLabels.of(make_manifest(len(sample_ids))), list(sample_ids))

    return make

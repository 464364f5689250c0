"""The guide to forms of one's own, and the package that it shows, as if it were installed."""

from __future__ import annotations

import csv
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from relabel_store.convert import formats
from relabel_store.convert.run import convert
from relabel_store.errors import LabelSourceError, OptionError
from relabel_store.labels.topk import top_k
from relabel_store.store.reader import open_store

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "new_format"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The example on the path, with the metadata that an installer would write."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    info = tmp_path / "site" / "dense_maps-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 1.0\n")
    points = project["entry-points"].items()
    (info / "entry_points.txt").write_text(
        "\n".join(f"[{group}]\n" + "".join(f"{a} = {b}\n" for a, b in some.items()) for group, some in points)
    )
    monkeypatch.syspath_prepend(str(info.parent))
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield
    for name in ("dense_maps", "winners_csv"):
        sys.modules.pop(name, None)


@pytest.fixture
def dense(tmp_path: Path, rng: np.random.Generator) -> dict[str, np.ndarray]:
    scores = {f"dog/{at}": rng.normal(5, 2, (7, 2, 3)).astype(np.float32) for at in range(4)}
    (tmp_path / "scores.dense" / "dog").mkdir(parents=True)
    for sample_id, one in scores.items():
        np.save(tmp_path / "scores.dense" / f"{sample_id}.npy", one)
    return scores


def test_the_example_is_recognised_and_converted_and_what_is_damaged_is_listed(
    tmp_path, installed, dense
) -> None:
    damaged = dense["dog/2"].copy()
    damaged[3, 1, 1] = np.nan
    np.save(tmp_path / "scores.dense" / "dog" / "2.npy", damaged)
    (tmp_path / "scores.dense" / "dog" / "3.npy").write_bytes(b"")
    report = convert(
        tmp_path / "scores.dense", tmp_path / "a.zarr", absent="rest", value_step="exact", workers=1
    )
    assert report.source_form == "dense"
    assert [sample_id for sample_id, _ in report.without_label] == ["dog/2", "dog/3"]
    assert "NaN or infinity" in report.without_label[0][1]
    found = open_store(tmp_path / "a.zarr").read_rows([0, 1])
    scores = np.stack([dense["dog/0"], dense["dog/1"]])
    indices, values = top_k(scores, 5)
    np.testing.assert_array_equal(np.sort(found.indices, axis=1), np.sort(indices, axis=1))
    np.testing.assert_array_equal(found.values, values.astype(np.float16))
    np.put_along_axis(scores, indices, -np.inf, axis=1)
    np.testing.assert_allclose(found.rest, np.log(np.exp(scores).sum(axis=1)), rtol=2**-10)


def test_the_example_is_converted_into(tmp_path, installed, dense) -> None:
    convert(tmp_path / "scores.dense", tmp_path / "a.csv", workers=1)
    with open(tmp_path / "a.csv", newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["sample_id", *(f"row{row}_col{col}" for row in range(2) for col in range(3))]
    store_first = {line[0]: list(map(int, line[1:])) for line in lines}
    for sample_id, scores in dense.items():
        rounded = np.rint(scores * 8)  # where two tie after rounding the lower class comes first
        best = np.argmax(np.where(rounded == rounded.max(axis=0), 1, 0), axis=0)
        assert store_first[sample_id] == best.ravel().tolist()


def test_the_example_refuses_what_it_cannot_do(tmp_path, installed, dense) -> None:
    with pytest.raises(OptionError, match="--num-classes: means nothing"):
        convert(tmp_path / "scores.dense", tmp_path / "a.zarr", num_classes=7)
    (tmp_path / "none.dense").mkdir()
    with pytest.raises(LabelSourceError, match="expected one for each image"):
        convert(tmp_path / "none.dense", tmp_path / "a.zarr")


def test_the_examples_forms_are_listed_only_while_it_is_installed(installed) -> None:
    assert formats.source_names()[-1] == "dense"
    assert "winners" in formats.target_names()


def test_without_it_they_are_not() -> None:
    assert "dense" not in formats.source_names()


@pytest.mark.parametrize("name", ["pyproject.toml", "dense_maps.py", "winners_csv.py"])
def test_the_guide_shows_the_example_as_it_is(name: str) -> None:
    guide = (ROOT / "docs" / "how-to" / "new-format.md").read_text(encoding="utf-8")
    language = "toml" if name.endswith("toml") else "python"
    assert f"```{language}\n{(EXAMPLE / name).read_text(encoding='utf-8')}```" in guide

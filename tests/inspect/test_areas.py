from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from relabel_store.errors import FormatError
from relabel_store.inspect.areas import ClassArea, cell_confidence, class_areas

Map = tuple[NDArray[np.uint16], NDArray[np.float16], NDArray[np.float16] | None, int]


def draw_map(
    rng: np.random.Generator, k: int, n_rows: int, n_cols: int, num_classes: int, *, with_rest: bool = False
) -> Map:
    shape = (k, n_rows, n_cols)
    cells = [rng.permutation(num_classes)[:k] for _ in range(n_rows * n_cols)]
    indices = np.stack(cells, axis=-1).reshape(shape).astype(np.uint16)
    values = np.sort(rng.normal(3, 4, size=shape), axis=0)[::-1].astype(np.float16)
    rest = rng.normal(2, 2, size=shape[1:]).astype(np.float16) if with_rest else None
    return indices, values, rest, num_classes


@st.composite
def maps(draw: st.DrawFn) -> Map:
    num_classes = draw(st.integers(1, 12))
    k = draw(st.integers(1, num_classes))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_rows, n_cols = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    return draw_map(rng, k, n_rows, n_cols, num_classes, with_rest=draw(st.booleans()))


def loop_confidence(values: Any, rest: Any, num_classes: int, row: int, col: int) -> float:
    logits = [float(value) for value in values[:, row, col]]
    total = sum(math.exp(logit) for logit in logits)
    total += (num_classes - len(logits)) * math.exp(0) if rest is None else math.exp(rest[row, col])
    return math.exp(logits[0]) / total


def loop_areas(indices: Any, values: Any, rest: Any, num_classes: int) -> list[ClassArea]:
    won: dict[int, list[float]] = {}
    _, n_rows, n_cols = indices.shape
    for row in range(n_rows):
        for col in range(n_cols):
            confidence = loop_confidence(values, rest, num_classes, row, col)
            won.setdefault(int(indices[0, row, col]), []).append(confidence)
    areas = [
        ClassArea(index, None, len(cells) / (n_rows * n_cols), sum(cells) / len(cells))
        for index, cells in won.items()
    ]
    return sorted(areas, key=lambda area: (-area.fraction, -round(area.confidence, 5), area.class_index))


@given(maps())
def test_confidence_equals_plain_loops(label_map: Map) -> None:
    _, values, rest, num_classes = label_map
    found = cell_confidence(values, rest, num_classes=num_classes)
    assert found.dtype == np.float32
    assert found.shape == values.shape[1:]
    for row, col in np.ndindex(found.shape):
        expected = loop_confidence(values, rest, num_classes, row, col)
        assert found[row, col] == pytest.approx(expected, rel=1e-6)


@given(maps())
def test_areas_equal_plain_loops(label_map: Map) -> None:
    indices, values, rest, num_classes = label_map
    found = class_areas(indices, values, rest=rest, num_classes=num_classes)
    expected = {area.class_index: area for area in loop_areas(indices, values, rest, num_classes)}
    assert {area.class_index for area in found} == set(expected)
    for area in found:
        assert area.fraction == expected[area.class_index].fraction
        assert area.confidence == pytest.approx(expected[area.class_index].confidence, rel=1e-6)
    assert found == sorted(found, key=lambda area: (-area.fraction, -area.confidence, area.class_index))
    assert sum(area.fraction for area in found) == pytest.approx(1)


def test_rest_gives_the_softmax_over_all_classes() -> None:
    logits = np.sort(np.random.default_rng(0).normal(size=(10, 2, 3)), axis=0)[::-1]
    softmax = np.exp(logits) / np.exp(logits).sum(axis=0)
    rest = np.log(np.exp(logits[4:]).sum(axis=0))
    np.testing.assert_allclose(cell_confidence(logits[:4], rest, num_classes=10), softmax[0], rtol=1e-6)


def test_rest_of_minus_infinity_means_nothing_was_left_out() -> None:
    values = np.array([2.0, 1.0], dtype=np.float16).reshape(2, 1, 1)
    rest = np.full((1, 1), -np.inf, dtype=np.float16)
    assert cell_confidence(values, rest, num_classes=5)[0, 0] == pytest.approx(1 / (1 + math.exp(-1)))


@pytest.mark.parametrize(
    ("value", "num_classes", "expected"),
    [
        pytest.param(65504, 1000, 1, id="largest-float16"),
        pytest.param(-65504, 1000, 0, id="smallest-float16"),
        pytest.param(-65504, 1, 1, id="smallest-float16-and-no-other-class"),
        pytest.param(0, 4, 0.25, id="like-the-absent-classes"),
    ],
)
def test_confidence_does_not_overflow(value: float, num_classes: int, expected: float) -> None:
    values = np.full((1, 1, 1), value, dtype=np.float16)
    assert cell_confidence(values, None, num_classes=num_classes)[0, 0] == expected


def test_equal_areas_stand_by_confidence_then_by_class_index() -> None:
    indices = np.array([[7, 5, 9, 3, 3]], dtype=np.uint16)[None]
    values = np.array([[2, 2, 4, 0, 0]], dtype=np.float16)[None]
    found = class_areas(indices, values, num_classes=10)
    assert [area.class_index for area in found] == [3, 9, 5, 7]


def test_names_are_those_of_the_winners_and_complete() -> None:
    indices = np.array([[2, 0]], dtype=np.uint16)[None]
    values = np.array([[1, 5]], dtype=np.float16)[None]
    names = ["tench, Tinca tinca", "goldfish", "ray"]
    found = class_areas(indices, values, num_classes=3, class_names=names)
    assert [area.name for area in found] == ["tench, Tinca tinca", "ray"]
    assert [area.name for area in class_areas(indices, values, num_classes=3)] == [None, None]


def test_indices_past_uint16_are_read() -> None:
    indices = np.full((1, 2, 2), 70_000, dtype=np.uint32)
    found = class_areas(indices, np.ones((1, 2, 2), dtype=np.float16), num_classes=100_000)
    assert [(area.class_index, area.fraction) for area in found] == [(70_000, 1.0)]


INDICES = np.zeros((2, 3, 3), dtype=np.uint16)
VALUES = np.ones((2, 3, 3), dtype=np.float16)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        pytest.param({"indices": INDICES[:1]}, "indices have shape", id="shapes-differ"),
        pytest.param({"indices": INDICES[0], "values": VALUES[0]}, "expected .k, n_rows", id="no-k-axis"),
        pytest.param({"indices": INDICES[:0], "values": VALUES[:0]}, "none of them 0", id="k-of-0"),
        pytest.param({"indices": INDICES + 65535}, "class index 65535", id="index-too-large"),
        pytest.param({"indices": INDICES.astype(int) - 1}, "class index -1", id="negative-index"),
        pytest.param({"num_classes": 1}, "2 classes a cell", id="more-kept-than-classes"),
        pytest.param({"values": VALUES * np.float16(np.nan)}, "NaN", id="nan-value"),
        pytest.param({"values": VALUES * np.float16(np.inf)}, "infinity", id="infinite-value"),
        pytest.param({"values": VALUES.cumsum(axis=0)}, "falling", id="rising-values"),
        pytest.param({"rest": VALUES}, "rest has shape", id="rest-of-wrong-shape"),
        pytest.param({"rest": VALUES[0] * np.float16(np.nan)}, "rest holds NaN", id="nan-rest"),
        pytest.param({"rest": VALUES[0] * np.float16(np.inf)}, "infinity", id="infinite-rest"),
    ],
)
def test_damaged_maps_are_refused(changed: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"indices": INDICES, "values": VALUES, "num_classes": 1000} | changed
    with pytest.raises(FormatError, match=message):
        class_areas(**arguments)


def test_names_of_another_number_of_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="found 2, expected one for each of 1000"):
        class_areas(INDICES, VALUES, num_classes=1000, class_names=["cat", "dog"])


def test_import_does_not_load_matplotlib() -> None:
    code = "import sys, relabel_store.inspect.areas; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0

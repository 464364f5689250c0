from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relabel_store.labels.orientation import (
    OrientationEvidence,
    Symmetry,
    colour_edges,
    compare_orientations,
    label_edges,
)


def scenes(rng: np.random.Generator, n: int, rows: int = 9, cols: int = 9, k: int = 3):
    """Return maps and photos of objects of some colour and class on a ground of another, with noise on both."""
    classes = np.zeros((n, rows, cols), np.int64)
    for scene in classes:
        scene[:] = rng.integers(0, 50)
        for _ in range(3):
            top, left = rng.integers(0, rows - 2), rng.integers(0, cols - 2)
            scene[top : top + rng.integers(2, 5), left : left + rng.integers(2, 5)] = rng.integers(0, 50)
    palette = rng.uniform(0, 255, (50, 3))
    colours = palette[classes] + rng.normal(0, 25, (*classes.shape, 3))
    indices = np.stack([classes] + [(classes + 50 * rank) % 200 for rank in range(1, k)], axis=1)
    values = np.sort(rng.uniform(0, 9, (n, k, rows, cols)), axis=1)[:, ::-1]
    return indices, values, colours


@pytest.mark.parametrize("way", Symmetry, ids=lambda way: way.name)
def test_turned_maps_are_found_out(rng, way: Symmetry) -> None:
    indices, values, colours = scenes(rng, 60)
    evidence = compare_orientations(way.apply(indices), way.apply(values), colours)
    assert evidence.photos == 60
    assert evidence.verdict is way.inverse
    assert ("rows first" in evidence.describe()) == (way is Symmetry.AS_IS)
    assert "of 60 photos better than" in evidence.describe()


def test_maps_of_other_photos_decide_nothing(rng) -> None:
    indices, values, _ = scenes(rng, 60)
    _, _, colours = scenes(rng, 60)
    evidence = compare_orientations(indices, values, colours)
    assert evidence.verdict is None
    assert evidence.describe() == "orientation of the maps: undecided, on 60 photos"


def test_a_grid_that_is_no_square_is_tried_without_exchanging_its_axes(rng) -> None:
    indices, values, colours = scenes(rng, 40, rows=7, cols=11)
    evidence = compare_orientations(indices[..., ::-1], values[..., ::-1], colours)
    assert len(evidence.symmetries) == 4
    assert evidence.verdict is Symmetry.MIRRORED
    assert "wrong, mirrored left to right they fit" in evidence.describe()


def test_few_photos_decide_nothing_however_well_they_fit(rng) -> None:
    evidence = compare_orientations(*scenes(rng, 7))
    assert evidence.best is Symmetry.AS_IS
    assert evidence.verdict is None


def test_photos_and_maps_of_one_colour_or_one_label_say_nothing(rng) -> None:
    indices, values, colours = scenes(rng, 12)
    colours[0] = 7
    indices[1], values[1] = indices[1, :, :1, :1], values[1, :, :1, :1]
    assert compare_orientations(indices, values, colours).photos == 10
    none = compare_orientations(indices[:1], values[:1], colours[:1])
    assert (none.photos, none.best, none.verdict) == (0, Symmetry.AS_IS, None)


def test_colours_of_another_grid_are_refused(rng) -> None:
    indices, values, colours = scenes(rng, 3)
    with pytest.raises(ValueError, match="expected one colour for each cell"):
        compare_orientations(indices, values, colours[:, :4])


def test_the_statistic_is_that_of_paired_differences() -> None:
    evidence = OrientationEvidence(
        (Symmetry.AS_IS, Symmetry.MIRRORED), np.array([[0.5, 0.1], [0.4, 0.2], [0.1, 0.2], [0.3, 0.2]])
    )
    differences = np.array([0.4, 0.2, -0.1, 0.1])
    expected = differences.mean() / (differences.std(ddof=1) / 2)
    assert evidence.z(Symmetry.AS_IS, Symmetry.MIRRORED) == pytest.approx(expected)
    assert evidence.z(Symmetry.MIRRORED, Symmetry.AS_IS) == pytest.approx(-expected)
    assert evidence.wins(Symmetry.AS_IS, Symmetry.MIRRORED) == 3
    assert evidence.z(Symmetry.AS_IS, Symmetry.AS_IS) == 0


@settings(max_examples=40)
@given(
    rows=st.integers(1, 5),
    cols=st.integers(1, 5),
    k=st.integers(1, 4),
    way=st.sampled_from(Symmetry),
    seed=st.integers(0, 2**16),
)
def test_edges_are_those_of_the_dense_scores_and_turn_with_the_map(rows, cols, k, way, seed) -> None:
    rng = np.random.default_rng(seed)
    indices = rng.permuted(np.broadcast_to(np.arange(6)[:, None, None], (2, 6, rows, cols)), axis=1)[:, :k]
    values = rng.normal(size=indices.shape)
    dense = np.zeros((2, 6, rows, cols))
    np.put_along_axis(dense, indices, values, axis=1)
    edges = label_edges(indices, values)
    for n, r, c in np.ndindex(2, rows, cols):
        if c + 1 < cols:
            expected = np.linalg.norm(dense[n, :, r, c] - dense[n, :, r, c + 1])
            assert edges.across[n, r, c] == pytest.approx(expected, abs=1e-6)
        if r + 1 < rows:
            expected = np.linalg.norm(dense[n, :, r, c] - dense[n, :, r + 1, c])
            assert edges.down[n, r, c] == pytest.approx(expected, abs=1e-6)
    turned = label_edges(way.apply(indices), way.apply(values))
    np.testing.assert_allclose(edges.turned(way).flat(), turned.flat(), atol=1e-6)
    np.testing.assert_array_equal(way.inverse.apply(way.apply(values)), values)
    as_colours = np.moveaxis(dense, 1, -1)
    np.testing.assert_allclose(colour_edges(as_colours).flat(), edges.flat(), atol=1e-6)

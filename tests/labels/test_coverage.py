from __future__ import annotations

import numpy as np
import pytest

from relabel_store.labels.coverage import Coverage, compare_coverage
from relabel_store.labels.own_photo import compare_with_others

SIDE = 8


def scenes(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return classes and colours of objects in a strip three times as wide as it is high."""
    classes = np.zeros((n, SIDE, 3 * SIDE), np.int64)
    for scene in classes:
        scene[:] = rng.integers(0, 50)
        for _ in range(6):
            top, left = rng.integers(0, SIDE - 2), rng.integers(0, 3 * SIDE - 4)
            scene[top : top + rng.integers(2, 5), left : left + rng.integers(3, 9)] = rng.integers(0, 50)
    colours = rng.uniform(0, 255, (50, 3))[classes] + rng.normal(0, 10, (*classes.shape, 3))
    return classes, colours


def squashed(scene: np.ndarray) -> np.ndarray:
    return scene[:, :, 1::3]


def cropped(scene: np.ndarray) -> np.ndarray:
    return scene[:, :, SIDE : 2 * SIDE]


def maps_of(rng: np.random.Generator, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    indices = np.stack([classes, classes + 50], axis=1)
    return indices, np.sort(rng.uniform(0, 9, indices.shape), axis=1)[:, ::-1]


@pytest.mark.parametrize(("make", "part"), [(squashed, Coverage.WHOLE), (cropped, Coverage.MIDDLE)])
def test_the_part_that_maps_cover_is_told(rng, make, part: Coverage) -> None:
    classes, colours = scenes(rng, 80)
    evidence = compare_coverage(*maps_of(rng, make(classes)), squashed(colours), cropped(colours))
    assert evidence.photos == 80
    assert evidence.verdict is part
    assert evidence.describe().startswith(f"the maps fit the {part.value} better than")


def test_maps_of_other_photos_and_few_photos_decide_nothing(rng) -> None:
    classes, _ = scenes(rng, 80)
    _, colours = scenes(rng, 80)
    assert (
        compare_coverage(*maps_of(rng, squashed(classes)), squashed(colours), cropped(colours)).verdict
        is None
    )
    classes, colours = scenes(rng, 7)
    assert (
        compare_coverage(*maps_of(rng, squashed(classes)), squashed(colours), cropped(colours)).verdict
        is None
    )


def test_photos_and_maps_without_any_change_are_left_out(rng) -> None:
    classes, colours = scenes(rng, 20)
    indices, values = maps_of(rng, squashed(classes))
    indices[3], values[3] = 7, 1.0
    colours[5] = 100
    evidence = compare_coverage(indices, values, squashed(colours), cropped(colours))
    assert evidence.photos == 18
    nothing = compare_coverage(indices[:0], values[:0], squashed(colours)[:0], cropped(colours)[:0])
    assert (nothing.photos, nothing.z, nothing.verdict) == (0, 0.0, None)


def test_maps_fit_their_own_photos_better_than_others(rng) -> None:
    classes, colours = scenes(rng, 120)
    maps = maps_of(rng, squashed(classes))
    assert compare_with_others(*maps, squashed(colours)).z > 10
    assert abs(compare_with_others(*maps, np.roll(squashed(colours), 40, axis=0)).z) < 4
    assert compare_with_others(maps[0][:1], maps[1][:1], squashed(colours)[:1]).z == 0.0

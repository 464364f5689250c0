"""Rules of label maps against plain loops."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from relabel_store import spec
from relabel_store.labels.values import ValueStep
from relabel_store.manifest import AbsentRule, Manifest
from relabel_store.store.files import FileEntry
from relabel_store.store.journal import BadImage, PartRecord
from relabel_store.testing import make_label_maps, make_manifest
from relabel_store.validate.label_maps import Labels, blocks_of, label_findings
from relabel_store.validate.scan import ScannedPart

N = 4
FILL = 65_535


def labels_of(manifest: Manifest, rng: np.random.Generator) -> Labels:
    """Sound maps of a first part, whose arrays may be written to."""
    maps = make_label_maps(rng, manifest)
    n = manifest.num_samples
    rest = None if maps.rest is None else maps.rest.copy()
    rows = np.arange(n, dtype=np.int64)
    return Labels(manifest, 0, rows, maps.indices.copy(), maps.values.copy(), rest, np.ones(n, np.bool_))


def broken_rules(labels: Labels) -> dict[str, set[int]]:
    """The rows that break each rule, by the slow and obvious way."""
    broken: dict[str, set[int]] = {}
    for row in range(len(labels.rows)):
        for rule in rules_broken_by(labels, row):
            broken.setdefault(rule, set()).add(row)
    return broken


def rules_broken_by(labels: Labels, row: int) -> Iterator[str]:
    indices, values = labels.indices[row].tolist(), labels.values[row].astype(float).tolist()
    rest = None if labels.rest is None else labels.rest[row].astype(float).tolist()
    label_map = labels.manifest.label_map
    flat = [index for rank in indices for line in rank for index in line]
    if not labels.is_labelled[row]:
        scores = [value for rank in values for line in rank for value in line]
        scores += [] if rest is None else [value for line in rest for value in line]
        if set(flat) != {FILL} or not all(map(math.isnan, scores)):
            yield "RS611"
        return
    if set(flat) == {FILL}:
        yield "RS611"
        return
    for r in range(label_map.grid[0]):
        for c in range(label_map.grid[1]):
            cell = [(values[k][r][c], indices[k][r][c]) for k in range(label_map.k)]
            yield from rules_broken_in_cell(cell, None if rest is None else rest[r][c], labels.manifest)


def rules_broken_in_cell(
    cell: list[tuple[float, int]], rest: float | None, manifest: Manifest
) -> Iterator[str]:
    label_map = manifest.label_map
    classes = [index for _, index in cell]
    step = ValueStep.parse(label_map.value_step)
    if any(index >= label_map.num_classes for index in classes):
        yield "RS612"
    if len(set(classes)) < len(classes):
        yield "RS613"
    for value, _ in cell:
        if not math.isfinite(value):
            yield "RS614"
        elif step.step is not None and (value % step.step or abs(value) > step.limit):
            yield "RS616"
    for (value, index), (next_value, next_index) in pairwise(cell):
        is_finite = math.isfinite(value) and math.isfinite(next_value)
        is_same = value == next_value and index == next_index  # RS613 has said that
        if is_finite and not is_same and (-value, index) >= (-next_value, next_index):
            yield "RS615"
    if rest is None:
        return
    left = label_map.num_classes - label_map.k
    if not math.isfinite(rest) if left else rest != -math.inf:
        yield "RS617"
    last = cell[-1][0]
    if left and math.isfinite(rest) and math.isfinite(last):
        rounding = (step.step or 0) / 2 + 2**-10 * (abs(last) + abs(rest)) + 1e-3
        if rest > last + math.log(left) + rounding:
            yield "RS618"


def found_rules(labels: Labels) -> dict[str, int]:
    """The number of rows that break each rule, as the checks count them; a row counts once an array."""
    counts: dict[str, int] = {}
    for finding in label_findings(labels):
        counts[finding.rule.id] = counts.get(finding.rule.id, 0) + finding.problem.count
    return counts


@settings(max_examples=100)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_rules_find_what_plain_loops_find(data: st.DataObject, seed: int) -> None:
    manifest = make_manifest(
        N,
        grid=(2, 2),
        k=data.draw(st.sampled_from([1, 2, 3, 5])),
        num_classes=5,
        value_step=data.draw(st.sampled_from([0.125, 1.0, "exact"])),
        absent=data.draw(st.sampled_from(AbsentRule)),
    )
    labels = labels_of(manifest, np.random.default_rng(seed))
    for _ in range(data.draw(st.integers(0, 4))):
        change(data, labels)
    expected = broken_rules(labels)
    found = found_rules(labels)
    assert set(found) == set(expected)
    for rule, rows in expected.items():
        if rule != "RS611":  # of which each array has its own
            assert found[rule] == len(rows)


def change(data: st.DataObject, labels: Labels) -> None:
    """Write something to some place of the arrays."""
    row = data.draw(st.integers(0, N - 1))
    what = data.draw(st.sampled_from(["indices", "values", "rest", "fill", "unlabelled", "bits"]))
    k = labels.indices.shape[1]
    at = (row, data.draw(st.integers(0, k - 1)), data.draw(st.integers(0, 1)), data.draw(st.integers(0, 1)))
    if what == "indices":
        labels.indices[at] = data.draw(st.sampled_from([0, 1, 2, 3, 4, 5, FILL]))
    elif what == "values":
        known = [0.0, -0.0, 0.125, 0.0625, -3.0, 300.0, 60000.0, math.inf, -math.inf, math.nan]
        labels.values[at] = data.draw(st.sampled_from(known))
    elif what == "bits":
        labels.values.view(np.uint16)[at] = data.draw(st.integers(0, 65_535))
    elif what == "rest" and labels.rest is not None:
        labels.rest[row, at[2], at[3]] = data.draw(
            st.sampled_from([0.0, 50.0, -50.0, math.inf, -math.inf, math.nan])
        )
    elif what == "fill":
        labels.indices[row] = FILL
    elif what == "unlabelled":
        labels.is_labelled[row] = False
        if data.draw(st.booleans()):
            labels.indices[row], labels.values[row] = FILL, math.nan
            if labels.rest is not None:
                labels.rest[row] = math.nan


def test_sound_maps_of_many_ranks_are_sound(rng: np.random.Generator):
    labels = labels_of(make_manifest(N, k=20, num_classes=30), rng)
    assert found_rules(labels) == {}
    labels.indices[1, 19, 0, 0] = labels.indices[1, 3, 0, 0]
    assert set(found_rules(labels)) == {"RS613"}


def test_a_finding_names_the_row_the_rank_and_the_cell(rng: np.random.Generator):
    labels = labels_of(make_manifest(N), rng)
    labels.indices[2, 1, 0, 2] = 77
    (finding,) = label_findings(labels)
    place = finding.problem.place
    assert (place.file, place.row, place.rank, place.cell) == ("indices/c/0/0/0/0", 2, 1, (0, 2))
    assert finding.message.startswith(
        "'indices/c/0/0/0/0', row 2, cell (0, 2), rank 1: class index 77, expected 0 to 4; "
    )


def test_ranks_out_of_order_are_shown_side_by_side(rng: np.random.Generator):
    labels = labels_of(make_manifest(N), rng)
    labels.indices[0, :, 1, 1], labels.values[0, :, 1, 1] = [3, 1], [2.0, 2.5]
    (finding,) = label_findings(labels)
    assert finding.problem.found == "2 of class 3 before 2.5 of class 1"


def test_many_rows_are_a_few_findings_that_count_them_all(rng: np.random.Generator):
    manifest = make_manifest(600, shard_rows=600, chunk_rows=60)
    labels = labels_of(manifest, rng)
    labels.indices[:] = 99
    found = list(label_findings(labels))
    of_classes = [finding for finding in found if finding.rule.id == "RS612"]
    assert len(of_classes) == 4
    assert sum(finding.problem.count for finding in of_classes) == 600


def scanned(labels: Labels, is_labelled: NDArray[np.bool_]) -> ScannedPart:
    record = PartRecord(0, range(len(labels.rows)), {}, FileEntry(0, ""), (BadImage(0, "bad"),), 0)
    arrays = {spec.INDICES: labels.indices, spec.VALUES: labels.values}
    return ScannedPart(labels.manifest, record, arrays, is_labelled, None)


@pytest.mark.parametrize("n", [1, 255, 256, 257, 600])
def test_blocks_are_the_rows_of_a_part_in_order(rng: np.random.Generator, n: int):
    labels = labels_of(make_manifest(n, grid=(1, 1), shard_rows=n, chunk_rows=n), rng)
    is_labelled = rng.random(n) < 0.5
    blocks = list(blocks_of(scanned(labels, is_labelled)))
    np.testing.assert_array_equal(np.concatenate([block.rows for block in blocks]), np.arange(n))
    np.testing.assert_array_equal(np.concatenate([block.indices for block in blocks]), labels.indices)
    np.testing.assert_array_equal(np.concatenate([block.is_labelled for block in blocks]), is_labelled)

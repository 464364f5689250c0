"""Every damage to a store, and every reader of it: right labels or an error of ours, never others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from relabel_store.errors import FormatError
from relabel_store.store.reader import open_store
from relabel_store.testing.damage import Damage
from relabel_store.testing.probe import Answers, Truth, ask_every_reader, ask_rows

AMOUNTS = [
    pytest.param((2, 307), id="sample"),
    pytest.param((None, 23), id="whole matrix", marks=pytest.mark.slow),
]


def names_it(answers: Answers, damage: Damage) -> bool:
    return any(repr(name) in error for name in damage.files for error in answers.errors)


@pytest.mark.parametrize("amount", AMOUNTS)
def test_no_reader_returns_other_labels_whatever_is_damaged(
    victim: Any, tmp_path: Path, amount: tuple[int | None, int], speaks_for_itself: Callable[[Damage], bool]
) -> None:
    problems = []
    for at, damage in enumerate(victim.damages(*amount)):
        path = victim.damaged(damage, tmp_path / "store")
        answers = ask_every_reader(path, tmp_path / f"cache-{at}", victim.truth)
        problems += [(str(damage), leaked) for leaked in answers.leaked]
        if damage.is_forged:
            continue  # another store, whose digest says so
        problems += [(str(damage), wrong) for wrong in answers.wrong]
        if any("FormatError" in error or "Damaged" in error for error in answers.errors):
            is_told = names_it(answers, damage) or speaks_for_itself(damage)
            problems += [] if is_told else [(str(damage), answers.errors[0])]
    assert problems == []


@pytest.mark.parametrize("amount", AMOUNTS)
def test_a_store_that_was_open_goes_on_serving_what_is_whole(
    victim: Any,
    tmp_path: Path,
    amount: tuple[int | None, int],
    part_of_file: Callable[[Path], dict[str, int]],
) -> None:
    problems = []
    parts = part_of_file(victim.path)
    for damage in victim.damages(*amount):
        if damage.is_forged or not set(damage.files) <= set(parts):
            continue
        before = open_store(victim.copy(tmp_path / "store"))
        damage.do(tmp_path / "store")
        for store in (before, open_store(tmp_path / "store")):
            answers = Answers()
            ask_rows(store, victim.truth, answers)
            hit = {parts[name] for name in damage.files}
            whole = {row for row in victim.truth.maps if row // 4 not in hit}
            broken = set(victim.truth.maps) - whole
            problems += [(str(damage), problem) for problem in answers.wrong + answers.leaked]
            problems += [(str(damage), "not served", whole)] if not whole <= answers.served_rows else []
            problems += [(str(damage), "served", broken)] if broken & answers.served_rows else []
    assert problems == []


def ask_dataset(path: Path, truth: Truth, answers: Answers) -> None:
    """Ask the data set that people train with for the target of each image."""
    from PIL import Image

    from relabel_store.torch import LabelDataset, LabelPooling

    known = [sample for row, sample in enumerate(truth.samples) if row in truth.maps]
    images = [Image.new("RGB", (sample["width"], sample["height"])) for sample in known]
    ids = [sample["sample_id"] for sample in known]
    with answers.collecting():
        dataset = LabelDataset(images, open_store(path), sample_ids=ids, join="inner")
        for at, (position, row) in enumerate(zip(dataset.join.positions, dataset.join.rows, strict=True)):
            kept = truth.maps[known[int(position)]["row"]]
            with answers.collecting():
                found = dataset[at][1]
                expected = LabelPooling(dataset.store.num_classes)(
                    torch.from_numpy(kept.indices)[None],
                    torch.from_numpy(kept.values)[None],
                    torch.tensor([[0.0, 0.0, 1.0, 1.0]]),
                    rest=None if kept.rest is None else torch.from_numpy(kept.rest)[None],
                )[0]
                answers.require(torch.equal(found, expected), f"image {ids[int(position)]!r}, row {row}")


def test_a_data_set_gives_no_other_targets_whatever_is_damaged(victim: Any, tmp_path: Path) -> None:
    sound = Answers()
    ask_dataset(victim.path, victim.truth, sound)
    assert (sound.right, sound.errors, sound.leaked) == (len(victim.truth.maps), [], [])
    problems = []
    for damage in victim.damages(4, 307):
        if damage.is_forged:
            continue
        answers = Answers()
        ask_dataset(victim.damaged(damage, tmp_path / "store"), victim.truth, answers)
        problems += [(str(damage), problem) for problem in answers.wrong + answers.leaked]
    assert problems == []


def test_whoever_forges_a_store_makes_another(finished: Any, tmp_path: Path) -> None:
    same = []
    for damage in finished.damages(5, 10_000):
        if damage.is_forged:
            path = finished.damaged(damage, tmp_path / "store")
            try:
                digest = open_store(path).digest
            except FormatError:
                continue
            same += [str(damage)] if digest == open_store(finished.path).digest else []
    assert same == []

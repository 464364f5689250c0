"""Equal (seed, epoch, row) gives equal draws, in whichever process."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from relabel_store.errors import OptionError
from relabel_store.store.reader import LabelStore
from relabel_store.torch.dataset import LabelDataset
from relabel_store.torch.draws import SeededDraws

PIPELINES: dict[str, Callable[[], Any]] = {
    "torchvision": lambda: v2.Compose(
        [v2.RandomResizedCrop(8), v2.RandomHorizontalFlip(), v2.ColorJitter(0.4), v2.ToImage()]
    ),
    "timm": lambda: create_transform(8, is_training=True, vflip=0.5, auto_augment="augmix-m5-w4-d2"),
}
Item = tuple[list[float], bool, bool, Any]


@pytest.fixture(params=PIPELINES)
def dataset(request: pytest.FixtureRequest, images: ImageFolder, store: LabelStore) -> LabelDataset:
    """Crops that follow from a seed, with their boxes."""
    return LabelDataset(images, store, PIPELINES[request.param](), pool_on="device", seed=7)


def what(picture: Any, maps: dict[str, torch.Tensor]) -> Item:
    return maps["boxes_xyxy"].tolist(), bool(maps["hflip"]), bool(maps["vflip"]), picture.tolist()


def load(dataset: LabelDataset, order: list[int], **options: Any) -> list[Item]:
    """Return what a loader gives of some positions, by rising position."""
    loader = DataLoader(dataset, sampler=order, batch_size=None, **options)
    found = [what(*item) for item in loader]
    return [found[at] for at in np.argsort(order)]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_what_is_drawn_does_not_depend_on_workers_or_order(
    workers: int, dataset: LabelDataset, rng: np.random.Generator
) -> None:
    dataset.epoch = 2
    expected = [what(*dataset[position]) for position in range(8)]
    assert len({tuple(box) for box, *_ in expected}) == 8
    assert load(dataset, rng.permutation(8).tolist(), num_workers=workers) == expected


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_what_is_drawn_does_not_depend_on_the_batch(batch_size: int, dataset: LabelDataset) -> None:
    dataset.epoch = 0
    expected = [dataset[position][1]["boxes_xyxy"] for position in range(8)]
    loader = DataLoader(dataset, batch_size, num_workers=2)
    assert torch.equal(torch.cat([maps["boxes_xyxy"] for _, maps in loader]), torch.stack(expected))


def test_what_is_drawn_belongs_to_the_label_and_not_to_the_position(
    images: ImageFolder, store: LabelStore
) -> None:
    transform = PIPELINES["torchvision"]()
    every = LabelDataset(images, store, transform, pool_on="device", seed=7)
    some = LabelDataset(Subset(images, [6, 1]), store, transform, pool_on="device", seed=7, join="inner")
    every.epoch = some.epoch = 3
    assert [what(*some[0]), what(*some[1])] == [what(*every[6]), what(*every[1])]


@pytest.mark.parametrize("change", [{"epoch": 1}, {"seed": 8}], ids=str)
def test_another_epoch_or_seed_draws_other_crops(
    change: dict[str, int], images: ImageFolder, store: LabelStore
) -> None:
    def draw(seed: int = 7, epoch: int = 0) -> list[Item]:
        dataset = LabelDataset(images, store, PIPELINES["torchvision"](), pool_on="device", seed=seed)
        dataset.epoch = epoch
        return [what(*dataset[position]) for position in range(8)]

    before, after = draw(), draw(**change)
    assert draw() == before
    assert all(one[0] != other[0] for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("context", "made"),
    [
        ("fork", lambda dataset: dataset),
        ("forkserver", lambda dataset: dataset),
        ("fork", copy.deepcopy),
        ("fork", lambda dataset: pickle.loads(pickle.dumps(dataset))),
    ],
    ids=["forked", "started anew", "of a copy", "of a pickle"],
)
def test_workers_that_run_already_see_the_epoch(
    context: str, made: Callable[[LabelDataset], LabelDataset], images: ImageFolder, store: LabelStore
) -> None:
    dataset = made(LabelDataset(images, store, PIPELINES["torchvision"](), pool_on="device", seed=7))
    loader = DataLoader(
        dataset, batch_size=None, num_workers=1, persistent_workers=True, multiprocessing_context=context
    )
    for epoch in (0, 1):
        dataset.epoch = epoch
        assert [what(*item) for item in loader] == [what(*dataset[position]) for position in range(8)]


def test_a_copy_has_an_epoch_of_its_own(images: ImageFolder, store: LabelStore) -> None:
    dataset = LabelDataset(images, store, seed=7)
    dataset.epoch = 1
    other = copy.deepcopy(dataset)
    other.epoch = 5
    assert (dataset.epoch, other.epoch) == (1, 5)


def draw_all() -> list[float]:
    return [random.gauss(0, 1), np.random.randn(), torch.randn(1).item()]


def test_the_generators_of_the_training_process_go_on_where_they_were(dataset: LabelDataset) -> None:
    dataset.epoch = 0
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = [*draw_all(), *draw_all(), *draw_all()]
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    found = draw_all()  # of each pair of normal numbers the second is still to come
    dataset[3]
    found += draw_all()
    dataset.images = [Image.new("RGB", (40, 30))] * 8
    dataset.transform = broken
    with pytest.raises(ZeroDivisionError):
        dataset[3]
    assert found + draw_all() == expected


def broken(image: Any, box: Any) -> Any:
    random.random()
    raise ZeroDivisionError


def test_without_a_seed_the_process_decides(images: ImageFolder, store: LabelStore) -> None:
    dataset = LabelDataset(images, store, v2.RandomResizedCrop(8), pool_on="device")
    torch.manual_seed(1)
    first = dataset[0][1]["boxes_xyxy"]
    assert not torch.equal(dataset[0][1]["boxes_xyxy"], first)
    torch.manual_seed(1)
    assert torch.equal(dataset[0][1]["boxes_xyxy"], first)


def test_an_epoch_without_a_seed_is_refused(images: ImageFolder, store: LabelStore) -> None:
    dataset = LabelDataset(images, store)
    assert dataset.epoch is None
    with pytest.raises(OptionError, match="epoch: 3, expected none without a seed; pass seed="):
        dataset.epoch = 3


def test_a_seed_without_an_epoch_is_refused(images: ImageFolder, store: LabelStore) -> None:
    dataset = LabelDataset(images, store, seed=7)
    with pytest.raises(
        OptionError, match=r"epoch: not set, .* seed=7 .*; set dataset.epoch before each pass"
    ):
        dataset[0]


def test_an_epoch_before_the_first_is_refused() -> None:
    with pytest.raises(OptionError, match="epoch: -1, expected a number from 0 on"):
        SeededDraws(7).epoch = -1


@pytest.mark.parametrize("seed", [0, -1, 2**80, np.int64(7)], ids=str)
def test_any_integer_is_a_seed(seed: int) -> None:
    draws = SeededDraws(seed)
    draws.epoch = 2**40
    with draws.of_row(5):
        first = draw_all()
    with draws.of_row(5):
        assert draw_all() == first


def test_no_set_epoch_that_timms_script_would_call_instead_of_the_samplers() -> None:
    assert not hasattr(LabelDataset, "set_epoch")

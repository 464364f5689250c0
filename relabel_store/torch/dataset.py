"""Images with the labels of what is seen of them."""

from __future__ import annotations

import logging
import operator
from collections.abc import Sequence
from contextlib import nullcontext
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import Dataset

from relabel_store.errors import CropError, GeometryError, JoinError, LabelMismatchError, OptionError
from relabel_store.labels.boxes import require_boxes
from relabel_store.manifest import Resize
from relabel_store.store.reader import LabelStore
from relabel_store.store.samples import column_values
from relabel_store.torch.crops import CropBox
from relabel_store.torch.draws import SeededDraws
from relabel_store.torch.join import (
    JoinMode,
    class_orders_of,
    join_labels,
    require_class_order,
    sample_ids_of,
    sources_of,
)
from relabel_store.torch.pooling import LabelPooling
from relabel_store.torch.tracking import as_tracked

__all__ = ["LabelDataset", "PoolOn"]

log = logging.getLogger(__name__)

_LOOKED_AT = 4  # images, when a dataset is made


class PoolOn(StrEnum):
    """Where label maps become targets."""

    WORKER = "worker"
    """In the process that loads the batch: items hold targets."""
    DEVICE = "device"
    """In the training loop: items hold what `LabelPooling` takes, by name."""


class _Crop(NamedTuple):
    picture: Any
    box: CropBox
    class_index: int


class LabelDataset(Dataset[tuple[Any, ...]]):
    """An image dataset whose targets are pooled from a teacher's label maps.

    Images and labels are joined by sample id when it is made; what does not fit together is said then.

    Parameters
    ----------
    images
        A map-style dataset of whole images (PIL, or tensors ``(..., height, width)``) or of tuples that begin
        with an image and a class index, without a transform of its own: ``ImageFolder``, timm's
        ``ImageDataset``, `SampleImages`, a ``Subset`` or ``ConcatDataset`` of these, or anything else with
        `sample_ids`.
    store
        Label maps. ``open_store(path).materialize()`` is made for training.
    transform
        What makes the crop: a transform of torchvision v2, the pipeline of ``timm.data.create_transform``, or
        a callable from ``(image, box)`` to ``(image, box)``. None: whole images.
    pool
        None: `LabelPooling` of all classes of the teacher.
    pool_on
        ``"worker"`` or ``"device"``.
    sample_ids
        One an image, for datasets that do not say which files they read.
    join
        ``"exact"``: every image has a label, and every label an image. ``"inner"``: those that have both;
        the dataset is as long as these are many.
    with_class_index
        Give the image dataset's class index as a third member of each item.
    seed
        What `transform` draws then follows from the seed, `epoch` and the row of the label alone, whatever the order,
        the number of workers and that of processes. None: it draws from its process, as in any other dataset.
    maps_cover_images
        Take each map to cover all of its image although the store says otherwise, or does not know.

    Raises
    ------
    JoinError
        Images without labels, labels without images, or no sample ids.
    ClassOrderError
        Class folders that are numbered otherwise than the targets.
    LabelMismatchError
        `pool` is for another class count; the images already have a transform; items are no images.
    GeometryError
        One of a few images is not of the size that was labelled, or each map covers a crop of its image.

    Notes
    -----
    An item is ``(image, target)``, with ``target`` float32 ``(num_classes,)``, or a dict of tensors named as
    the arguments of `LabelPooling` where it is pooled on the device. PyTorch's default collate makes batches
    of both. Where a batch is fetched at once its maps are read and pooled together.

    An image whose proportions are not those that were labelled raises `GeometryError`, which finds readers that
    apply the EXIF orientation by 90 degrees; one that turns by 180 degrees or mirrors cannot be told.

    Examples
    --------
    >>> from torchvision.datasets import ImageFolder                               # doctest: +SKIP
    >>> from torchvision.transforms import v2                                      # doctest: +SKIP
    >>> store = relabel_store.open_store("l2.zarr").materialize()                  # doctest: +SKIP
    >>> crop = v2.Compose([v2.RandomResizedCrop(224), v2.RandomHorizontalFlip()])  # doctest: +SKIP
    >>> dataset = LabelDataset(ImageFolder("imagenet/train"), store, crop)         # doctest: +SKIP
    >>> image, target = dataset[0]                                                 # doctest: +SKIP
    """

    def __init__(
        self,
        images: Any,
        store: LabelStore,
        transform: Any = None,
        *,
        pool: LabelPooling | None = None,
        pool_on: PoolOn | str = PoolOn.WORKER,
        sample_ids: Sequence[str] | None = None,
        join: JoinMode | str = JoinMode.EXACT,
        with_class_index: bool = False,
        seed: int | None = None,
        maps_cover_images: bool = False,
    ) -> None:
        self.images = images
        self.store = store
        self.pool = LabelPooling(store.num_classes) if pool is None else pool
        self.pool_on = PoolOn(pool_on)
        self.with_class_index = with_class_index
        self.maps_cover_images = maps_cover_images
        self._draws = None if seed is None else SeededDraws(seed)
        self._transform, self._tracked = transform, as_tracked(transform)
        _require_untransformed(images)
        if self.pool.num_classes != store.num_classes:
            raise LabelMismatchError(
                f"pool: of {self.pool.num_classes} classes, expected {store.num_classes} as in the store"
            )
        ids = sample_ids_of(images) if sample_ids is None else list(sample_ids)
        if len(ids) != len(images):
            raise JoinError(f"sample_ids: {len(ids)}, expected {len(images)}, one an image")
        self.join = join_labels(ids, store, JoinMode(join))
        """Which images and labels were found to belong together."""
        log.info("labels of %r: %s", store.manifest.name, self.join)
        self._require_class_order(images)
        sizes = store.samples.select(["width", "height"])
        self._labelled_sizes = np.stack(
            [column_values(column, null=0)[self.join.rows] for column in sizes.columns],
            axis=1,
            dtype=np.int32,
        )
        self._require_whole_images()
        if sample_ids is None:  # files of a known dataset, which may be opened in this process too
            self._require_geometry_of_some()

    def __len__(self) -> int:
        return len(self.join.rows)

    @property
    def transform(self) -> Any:
        """What makes the crop; may be set, as ``timm.data.create_loader`` does.

        Raises
        ------
        CropError
            It cannot be told what the transform does to the region. Or None, which is how ``create_loader`` begins
            with ``input_size_choices``: it then crops the items, each labelled as a whole.
        """
        return self._transform

    @transform.setter
    def transform(self, transform: Any) -> None:
        if transform is None:
            raise CropError(
                "transform: set to None, expected what makes the crop; a picture that is cropped outside of the "
                "dataset, as timm does with input_size_choices, would keep the label of the whole image. Leave "
                "input_size_choices out; for whole images make another LabelDataset"
            )
        self._tracked = as_tracked(transform)  # which may refuse it
        self._transform = transform

    @property
    def epoch(self) -> int | None:
        """The epoch that is drawn for where there is a seed; to be set before each pass over the data.

        An item raises `OptionError` while it is None, and so does setting it without a seed, which would do nothing.
        Workers that run already see it. Not ``set_epoch``: timm's training script calls that in place of the
        sampler's own, and each epoch of a distributed training would come in one order.
        """
        return None if self._draws is None else self._draws.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        if self._draws is None:
            raise OptionError(
                f"epoch: {epoch}, expected none without a seed; pass seed= to LabelDataset for crops that follow from "
                "seed, epoch and row"
            )
        self._draws.epoch = epoch

    @property
    def num_targets(self) -> int:
        """Number of classes that the targets tell apart: what the student needs."""
        return self.pool.num_targets

    def __getitem__(self, position: int) -> tuple[Any, ...]:
        """Return one item; see the notes of the class."""
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[tuple[Any, ...]]:
        """Return the items of a batch; PyTorch's ``DataLoader`` calls this."""
        if not positions:
            return []
        at = [self._at(position) for position in positions]
        crops = [self._crop(position) for position in at]
        targets = self._targets(at, crops)
        if self.with_class_index:
            return [
                (crop.picture, target, crop.class_index) for crop, target in zip(crops, targets, strict=True)
            ]
        return [(crop.picture, target) for crop, target in zip(crops, targets, strict=True)]

    def _at(self, position: int) -> int:
        if not -len(self) <= operator.index(position) < len(self):
            raise IndexError(f"position {position}: out of range, expected {-len(self)} to {len(self) - 1}")
        return operator.index(position) % len(self)

    def _crop(self, at: int) -> _Crop:
        members = self._members(at)
        box = CropBox.of(members[0])
        self._require_geometry(at, box)
        with nullcontext() if self._draws is None else self._draws.of_row(int(self.join.rows[at])):
            picture, box = self._tracked(members[0], box)
        return _Crop(picture, box, int(members[1]) if self.with_class_index else -1)

    def _members(self, at: int) -> Sequence[Any]:
        """Return what the image dataset gives for an image: the image, and maybe its class index."""
        item = self.images[int(self.join.positions[at])]
        members = item if isinstance(item, tuple | list) else (item,)
        if not isinstance(members[0], Image | Tensor):
            raise LabelMismatchError(
                f"images: item {int(self.join.positions[at])} is a {type(members[0]).__name__}, expected a PIL image "
                "or a tensor (..., height, width), alone or first in a tuple"
            )
        if self.with_class_index and len(members) < 2:
            raise LabelMismatchError(
                "images: items are images alone, expected (image, class index) for with_class_index=True"
            )
        return members

    def _targets(
        self, positions: Sequence[int], crops: Sequence[_Crop]
    ) -> Sequence[Tensor | dict[str, Tensor]]:
        maps = self.store.read_rows(self.join.rows[positions])
        boxes = np.array([crop.box.tolist() for crop in crops], np.float32)
        arguments = {
            "indices": torch.from_numpy(maps.indices),
            "values": torch.from_numpy(maps.values),
            "boxes_xyxy": torch.from_numpy(require_boxes(boxes)),
            "hflip": torch.tensor([crop.box.is_hflipped for crop in crops]),
            "vflip": torch.tensor([crop.box.is_vflipped for crop in crops]),
        }
        if maps.rest is not None:
            arguments["rest"] = torch.from_numpy(maps.rest)
        if self.pool_on is PoolOn.DEVICE:
            return [{name: part[at] for name, part in arguments.items()} for at in range(len(crops))]
        targets: Tensor = self.pool(**arguments)
        return targets.unbind()

    def _require_class_order(self, images: Any) -> None:
        teacher_s = self.store.manifest.classes.index_of_folder()
        orders = class_orders_of(images)
        if not self.with_class_index and orders and all(order == teacher_s for order in orders):
            return  # SampleImages, which numbers classes as the teacher does; and nobody sees the numbers
        found = [require_class_order(order, self.store, self.pool.selected_classes) for order in orders]
        if not found or not all(found):
            log.warning(
                "classes of %r: not compared with those of the images, which have no class folders of the "
                "teacher's class names; class indices of the two may mean different things",
                self.store.manifest.name,
            )

    def _require_whole_images(self) -> None:
        resize = self.store.manifest.geometry.resize
        if resize is Resize.CENTER_CROP and not self.maps_cover_images:
            raise GeometryError(
                f"labels {self.store.manifest.name!r}: each map covers a square in the middle of its image, expected "
                "all of it; give images that are cropped so already, and maps_cover_images=True"
            )
        if resize is Resize.UNKNOWN and not self.maps_cover_images:
            log.warning(
                "labels %r: nobody knows which part of an image a map covers; taken to be all of it "
                "(maps_cover_images=True says that it is)",
                self.store.manifest.name,
            )

    def _require_geometry_of_some(self) -> None:
        """Look at a few images now, which tells most readers of something else before the first batch."""
        for at in np.linspace(0, len(self) - 1, min(_LOOKED_AT, len(self)), dtype=int).tolist():
            self._require_geometry(at, CropBox.of(self._members(at)[0]))

    def _require_geometry(self, at: int, box: CropBox) -> None:
        width, height = self._labelled_sizes[at].tolist()
        rows, columns = box.canvas_size
        if (rows, columns) == (height, width) or not width:
            return
        # A copy of the image that was resized may be off by a pixel on each side.
        slack = 1.5 * (width + height)
        is_transposed = (rows, columns) == (width, height)
        if abs(columns * height - rows * width) <= slack and not is_transposed:
            return
        turned = is_transposed or abs(columns * width - rows * height) <= slack
        why = (
            "the reader seems to apply the EXIF orientation, which labels ignore; read images without it"
            if turned
            else "it is another image, or was cropped before"
        )
        sample_id = self.store[int(self.join.rows[at])].sample_id
        raise GeometryError(
            f"image of sample {sample_id!r}: {columns} x {rows} pixels, expected {width} x {height}, of which the "
            f"label was made, or a resized copy: {why}"
        )


def _require_untransformed(images: Any) -> None:
    for source in sources_of(images):
        for name in ("transform", "target_transform", "transforms"):
            if getattr(source, name, None) is not None:
                raise LabelMismatchError(
                    f"images: {type(source).__name__} has a {name} of its own, expected whole images; "
                    "pass it to LabelDataset, which has to know what becomes of the image"
                )

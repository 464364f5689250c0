"""Train a torchvision classifier on a teacher's label maps with Lightning.

    python examples/train_lightning.py imagenet/train l2.zarr --model resnet50 --epochs 100

On several devices or nodes Lightning starts this file once a device. What differs from any other data module is
marked with (*).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lightning
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision.models import get_model
from torchvision.transforms import v2

import relabel_store
from relabel_store.torch import LabelDataset, SampleImages


class LabelledImages(lightning.LightningDataModule):
    """Crops of the images of a store, each with the label of what it shows.

    Parameters
    ----------
    seed
        Crops then follow from it, the epoch and the row alone.
    cache_dir
        Where the store is decoded, of each node; None is the usual place.
    """

    def __init__(
        self,
        images: str,
        store: str,
        *,
        size: int = 224,
        batch_size: int = 256,
        workers: int = 8,
        seed: int | None = None,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.dataset: LabelDataset | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes that the targets tell apart."""
        return relabel_store.open_store(self.hparams.store).num_classes

    def prepare_data(self) -> None:
        """Decode the store: (*) in one process of each node, before any device starts."""
        relabel_store.open_store(self.hparams.store).materialize(self.hparams.cache_dir)

    def setup(self, stage: str) -> None:
        """Open what was decoded: (*) in every process, which share its memory."""
        store = relabel_store.open_store(self.hparams.store).materialize(self.hparams.cache_dir)
        crop = v2.Compose(
            [
                v2.RandomResizedCrop(self.hparams.size),
                v2.RandomHorizontalFlip(),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
            ]
        )
        images = SampleImages(self.hparams.images, store)
        self.dataset = LabelDataset(images, store, crop, seed=self.hparams.seed)  # (*)

    def set_epoch(self, epoch: int) -> None:
        """Draw the crops of an epoch."""
        if self.hparams.seed is not None:
            self.dataset.epoch = epoch

    def train_dataloader(self) -> DataLoader:
        """Return batches of pictures and targets; Lightning gives each process its part of them."""
        if len(self.dataset) < self.hparams.batch_size:
            raise SystemExit(f"{len(self.dataset)} images do not fill one batch; use a smaller --batch-size")
        self.set_epoch(self.trainer.current_epoch)  # (*) the first pass begins before any hook of an epoch
        return DataLoader(
            self.dataset,
            self.hparams.batch_size,
            shuffle=True,
            num_workers=self.hparams.workers,
            persistent_workers=self.hparams.workers > 0,
            drop_last=True,
        )


class Student(lightning.LightningModule):
    """A classifier and how it learns."""

    def __init__(self, model: str, num_classes: int, lr: float, log_every: int) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = get_model(model, num_classes=num_classes)

    def on_train_epoch_start(self) -> None:
        self.trainer.datamodule.set_epoch(self.current_epoch)  # (*)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        pictures, targets = batch
        loss = functional.cross_entropy(self.model(pictures), targets)  # (*) soft targets
        if (self.global_step + 1) % self.hparams.log_every == 0:
            self.print(f"step {self.global_step + 1}: loss {loss.item():.3f} (of this batch)", flush=True)
        return loss

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.SGD(
            self.parameters(), self.hparams.lr, momentum=0.9, nesterov=True, weight_decay=1e-4
        )
        total = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.hparams.lr, total_steps=total, pct_start=0.05
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main() -> None:
    args = parse_arguments()
    data = LabelledImages(
        args.images,
        args.store,
        size=args.size,
        batch_size=args.batch_size,
        workers=args.workers,
        seed=args.seed,
    )
    student = Student(args.model, data.num_classes, args.lr, args.log_every)
    trainer = lightning.Trainer(
        max_epochs=-1 if args.steps else args.epochs,
        max_steps=args.steps or -1,
        devices=args.devices,
        accelerator=args.accelerator,
        precision="bf16-mixed" if args.amp else "32-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(student, data)
    if args.out and trainer.is_global_zero:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        torch.save(student.model.state_dict(), args.out)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", help="folder that the store was built from")
    parser.add_argument("store", help="label store of these images")
    parser.add_argument("--model", default="resnet50", help="a name in torchvision.models")
    parser.add_argument("--size", type=int, default=224, help="pixels of the crops")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--steps", type=int, help="stop after so many, whatever the epochs")
    parser.add_argument("--batch-size", type=int, default=256, help="of each process")
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seed", type=int, help="for crops that are the same in every run")
    parser.add_argument("--devices", default="auto", help="how many, or 'auto'")
    parser.add_argument("--accelerator", default="auto", help="'gpu', 'cpu', or what there is")
    parser.add_argument("--amp", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--out", type=Path, help="file for the weights")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""Train a torchvision classifier on a teacher's label maps.

    python examples/train_torchvision.py imagenet/train l2.zarr --model resnet50 --epochs 100
    torchrun --nproc-per-node 8 examples/train_torchvision.py imagenet/train l2.zarr --batch-size 128

What differs from any other training script is marked with (*).
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, DistributedSampler
from torchvision.datasets import ImageFolder
from torchvision.models import get_model
from torchvision.transforms import v2

import relabel_store
from relabel_store.torch import LabelDataset, SampleImages, class_columns

TO_INPUT = [
    v2.ToDtype(torch.float32, scale=True),
    v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
]


def main() -> None:
    args = parse_arguments()
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)  # now, not after a hundred epochs
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = choose_device()
    if world_size > 1:
        torch.distributed.init_process_group()

    store = relabel_store.open_store(args.store).materialize()  # (*) decoded once, shared by all processes
    crop = v2.Compose([v2.RandomResizedCrop(args.size), v2.RandomHorizontalFlip(), v2.ToImage(), *TO_INPUT])
    images = SampleImages(
        args.images, store
    )  # or torchvision's ImageFolder, of a part of it, or your own dataset
    dataset = LabelDataset(images, store, crop)  # (*) targets are the labels of what each crop shows
    sampler = DistributedSampler(dataset, world_size, rank, shuffle=True)
    loader = DataLoader(
        dataset,
        args.batch_size,
        sampler=sampler,
        num_workers=args.workers,
        persistent_workers=args.workers > 0,
        pin_memory=device.type == "cuda",
        drop_last=True,
    )
    if not len(loader):
        raise SystemExit(f"{len(dataset)} images do not fill one batch; use a smaller --batch-size")
    epochs = math.ceil(args.steps / len(loader)) if args.steps else args.epochs
    steps = args.steps or epochs * len(loader)
    validation = make_validation(args, store) if args.val and rank == 0 else None

    model: nn.Module = get_model(args.model, num_classes=dataset.num_targets).to(device)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(args.ema)) if args.ema else None
    trained = nn.parallel.DistributedDataParallel(model) if world_size > 1 else model
    lr = args.lr * args.batch_size * world_size / 256
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.05)
    cutmix = v2.CutMix(num_classes=dataset.num_targets) if args.cutmix else None

    step, started = 0, time.perf_counter()
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for pictures, targets in itertools.islice(loader, steps - step):
            pictures, targets = pictures.to(device, non_blocking=True), targets.to(device, non_blocking=True)
            if cutmix is not None:
                pictures, targets = cutmix(pictures, targets)
            with torch.autocast(device.type, torch.bfloat16, enabled=args.amp):
                loss = functional.cross_entropy(trained(pictures), targets)  # (*) soft targets
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if ema is not None:
                ema.update_parameters(model)
            step += 1
            if rank == 0 and (step % args.log_every == 0 or step == steps):
                speed = step * args.batch_size * world_size / (time.perf_counter() - started)
                print(
                    f"step {step} of {steps}: loss {loss.item():.3f} (of this batch), {speed:.0f} images/s",
                    flush=True,
                )
        if rank == 0:
            averaged = model if ema is None else ema.module
            if args.out:
                torch.save(averaged.state_dict(), args.out)
            if validation is not None:
                print(f"epoch {epoch + 1}: top-1 {accuracy(averaged, *validation, device):.2%}", flush=True)

    if world_size > 1:
        torch.distributed.destroy_process_group()


def make_validation(args, store):
    """Return batches of validation images, and the column of the targets that is each of their classes."""
    crop = v2.Compose([v2.Resize(args.size * 8 // 7), v2.CenterCrop(args.size), v2.ToImage(), *TO_INPUT])
    folder = ImageFolder(args.val, crop)
    columns = torch.tensor(class_columns(store, folder.classes))
    return DataLoader(folder, args.batch_size, num_workers=args.workers), columns


@torch.no_grad()
def accuracy(model, loader, columns, device) -> float:
    """Return how often the best class is the right one."""
    was_training = model.training
    model.eval()
    right = sum((model(x.to(device)).argmax(1).cpu() == columns[y]).sum().item() for x, y in loader)
    model.train(was_training)
    return right / len(loader.dataset)


def choose_device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("cuda")


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
    parser.add_argument("--lr", type=float, default=0.1, help="for each 256 images of a step")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--cutmix", action="store_true")
    parser.add_argument("--amp", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
    parser.add_argument("--ema", type=float, metavar="DECAY", help="average the weights, e.g. 0.9999")
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument(
        "--val", metavar="FOLDER", help="class folders to measure the student on after each epoch"
    )
    parser.add_argument("--out", type=Path, help="file for the weights, written after each epoch")
    return parser.parse_args()


if __name__ == "__main__":
    main()

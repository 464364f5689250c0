"""Train a timm classifier on a teacher's label maps, with timm's own pipeline.

    python examples/train_timm.py imagenet/train l2.zarr --model resnet50 --epochs 100
    torchrun --nproc-per-node 8 examples/train_timm.py imagenet/train l2.zarr --val imagenet/val \\
        --model vit_small_patch16_224 --opt adamw --lr 5e-4 --weight-decay 0.05 --cutmix 1 --out vit.pt

What differs from a training script without label maps is marked with (*).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import timm
import torch
from timm.data import create_loader, create_transform, resolve_data_config
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3, init_distributed_device, is_primary
from torch.utils.data import DataLoader, default_collate
from torchvision.datasets import ImageFolder

import relabel_store
from relabel_store.torch import LabelDataset, SampleImages, SoftMixup, class_columns


def main() -> None:
    args = parse_arguments()
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)  # now, not after a hundred epochs
    device = init_distributed_device(args)  # sets args.distributed, args.rank, args.world_size, ...

    store = relabel_store.open_store(args.store).materialize()  # (*) decoded once, shared by all processes
    images = SampleImages(
        args.images, store
    )  # or timm's ImageDataset, or torchvision's ImageFolder, of a part of it
    dataset = LabelDataset(images, store)  # (*) targets are the labels of what each crop shows

    size = (
        {"img_size": args.img_size} if args.img_size and "vit" in args.model else {}
    )  # its positions are learnt
    model = timm.create_model(args.model, num_classes=dataset.num_targets, **size).to(device)
    data_config = resolve_data_config(vars(args), model=model)
    loader = create_loader(
        dataset,
        input_size=data_config["input_size"],
        batch_size=args.batch_size,
        is_training=True,
        color_jitter=None,
        auto_augment=args.aa,
        interpolation="bicubic",
        mean=data_config["mean"],
        std=data_config["std"],
        num_workers=args.workers,
        persistent_workers=args.workers > 0,
        distributed=args.distributed,
        device=device,
        collate_fn=default_collate,  # (*) timm's own made integers of the targets before 1.0.31
    )
    if not len(loader):
        raise SystemExit(f"{len(dataset)} images do not fill one batch; use a smaller --batch-size")
    epochs = -(-args.steps // len(loader)) if args.steps else args.epochs
    steps = args.steps or epochs * len(loader)
    validation = make_validation(args, data_config, store) if args.val and is_primary(args) else None

    ema = ModelEmaV3(model, decay=args.ema) if args.ema else None
    trained = torch.nn.parallel.DistributedDataParallel(model) if args.distributed else model
    lr = args.lr * args.batch_size * args.world_size / 256
    optimizer = create_optimizer_v2(model, opt=args.opt, lr=lr, weight_decay=args.weight_decay)
    schedule, _ = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=epochs, warmup_epochs=min(5, epochs // 4)
    )
    mixup = SoftMixup(args.mixup, args.cutmix) if args.mixup or args.cutmix else None  # (*)
    loss_of = SoftTargetCrossEntropy()

    step, started = 0, time.perf_counter()
    for epoch in range(epochs):
        if args.distributed:
            loader.sampler.set_epoch(epoch)
        for pictures, targets in loader:
            pictures, targets = pictures.to(device), targets.to(device)
            if mixup is not None:
                pictures, targets = mixup(pictures, targets)
            with torch.autocast(device.type, torch.bfloat16, enabled=args.amp):
                loss = loss_of(trained(pictures), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if ema is not None:
                ema.update(model)
            step += 1
            if is_primary(args) and (step % args.log_every == 0 or step == steps):
                speed = step * args.batch_size * args.world_size / (time.perf_counter() - started)
                lr = optimizer.param_groups[0]["lr"]
                print(
                    f"step {step} of {steps}: loss {loss.item():.3f} (of this batch), lr {lr:.2g}, "
                    f"{speed:.0f} images/s",
                    flush=True,
                )
            if step == steps:
                break
        schedule.step(epoch + 1)
        if is_primary(args):
            averaged = model if ema is None else ema.module
            if args.out:
                torch.save(averaged.state_dict(), args.out)
            if validation is not None:
                print(f"epoch {epoch + 1}: top-1 {accuracy(averaged, *validation, device):.2%}", flush=True)

    if args.distributed:
        torch.distributed.destroy_process_group()


def make_validation(args, data_config, store):
    """Return batches of validation images, and the column of the targets that is each of their classes."""
    folder = ImageFolder(args.val, create_transform(**data_config))
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


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", help="folder that the store was built from")
    parser.add_argument("store", help="label store of these images")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--model", default="resnet50", help="a name that timm.list_models() knows")
    parser.add_argument("--img-size", type=int, help="pixels of the crops; the model's own by default")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--steps", type=int, help="stop after so many, whatever the epochs")
    parser.add_argument("--batch-size", type=int, default=256, help="of each process")
    parser.add_argument("--opt", default="sgd")
    parser.add_argument("--lr", type=float, default=0.1, help="for each 256 images of a step")
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    parser.add_argument("--aa", metavar="POLICY", help="e.g. rand-m7-inc1")
    parser.add_argument("--mixup", type=float, default=0.0, metavar="ALPHA")
    parser.add_argument("--cutmix", type=float, default=0.0, metavar="ALPHA")
    parser.add_argument("--workers", type=int, default=8)
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

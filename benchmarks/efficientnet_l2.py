"""EfficientNet-L2, the paper's teacher, on one photo at 475 px: does the whole network run, is its map exact?

    python benchmarks/efficientnet_l2.py PHOTO [--device cpu]

The weights are random (480 M of them, 1.9 GB): grid, identity and time do not depend on what they are.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import timm
import torch
from machine import describe_machine

from relabel_store.generate.aliases import ALIASES
from relabel_store.generate.build import build, choose_device
from relabel_store.generate.limit import LimitedImages
from relabel_store.generate.teacher import TeacherFacts, TeacherInput, TimmTeacher
from relabel_store.images.recognise import open_images
from relabel_store.manifest import Classes, Weights
from relabel_store.store.reader import open_store


def main() -> None:
    """Build a store of one photo and print what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photo", type=Path)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    alias = ALIASES["efficientnet_l2"]

    started = time.perf_counter()
    model = random_model(alias.timm_name.partition(".")[0], alias.input_size)
    made_s = time.perf_counter() - started
    started = time.perf_counter()
    teacher = TimmTeacher(
        model,
        TeacherFacts(
            name=alias.name,
            input=TeacherInput((alias.input_size, alias.input_size)),
            num_classes=1000,
            classes=Classes.of(None, None, None),
            weights=Weights("random", None),
            architecture=alias.timm_name.partition(".")[0],
        ),
    )
    probed_s = time.perf_counter() - started
    source = LimitedImages(open_images(arguments.photo.parent), 1)
    with tempfile.TemporaryDirectory() as work:
        started = time.perf_counter()
        build(teacher, source, Path(work) / "l2.zarr", device=arguments.device, absent="zero", workers=0)
        built_s = time.perf_counter() - started
        store = open_store(Path(work) / "l2.zarr")
        parameters = sum(parameter.numel() for parameter in model.parameters())
        print(describe_machine())
        print(f"{parameters / 1e6:.0f} M parameters on {choose_device(arguments.device)}, fp32")
        print(f"grid {store.grid}, top {store.k}, dense map {store.manifest.teacher.dense.kind}")
        print(f"identity error {store.manifest.teacher.dense.identity_error:.2e}")
        print(
            f"made in {made_s:.0f} s, made dense in {probed_s:.0f} s, checked and labelled one photo in {built_s:.0f} s"
        )
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB")


def random_model(architecture: str, size: int) -> torch.nn.Module:
    """Return an architecture whose random weights give logits of ordinary size."""
    torch.manual_seed(0)
    model = timm.create_model(architecture, pretrained=False)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        # 800 random layers amplify: bring the logits back to the size that a trained teacher's have.
        classifier = model.get_classifier()
        logits = model.eval()(torch.randn(1, 3, size, size))
        classifier.weight.mul_(3.0 / logits.std())
        classifier.bias.fill_(8.0)
    return model


if __name__ == "__main__":
    main()

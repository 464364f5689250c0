"""FKD, dataset reinforcement and TinyViT: small examples as their published code writes them."""

from __future__ import annotations

import pickle
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from relabel_store.convert import formats
from relabel_store.convert.source import SourceOptions
from relabel_store.convert.sources import dataset_dr, fkd, npy_folder, npz, tinyvit
from relabel_store.convert.sources.file_words import words_in
from relabel_store.errors import LabelSourceError

FORMS = {"fkd": fkd, "dataset-dr": dataset_dr, "tinyvit": tinyvit}
N_CROPS = 4


def write_fkd(root: Path, *, is_zip: bool = True, is_half: bool = False) -> Path:
    """Coordinates, flips, and the five best classes of each crop, as `marginal_smoothing_k5`."""
    rng = np.random.default_rng(1)
    for stem in ("n01440764_10026", "n01440764_10027"):
        best = torch.topk(torch.softmax(torch.from_numpy(rng.normal(size=(N_CROPS, 1000))), 1), 5)
        output = torch.stack([best.indices.double(), best.values], 1)
        state = [
            rng.random((N_CROPS, 4)).astype(np.float32),
            rng.random(N_CROPS) < 0.5,
            output.half() if is_half else output.float(),
        ]
        path = root / "imagenet" / "train" / "n01440764" / f"{stem}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, path, _use_new_zipfile_serialization=is_zip)
    return root


def write_dataset_dr(root: Path, *, how: str = "zip") -> Path:
    root.mkdir()
    for position in range(3):
        params = {"rrc": ((1, 2, 30, 40), (5, 6, 70, 80)), "flip": (True, False), "mixup": 0.3, "id2": 1}
        sample = (position, [{"params": params, "prob": ([0.6, 0.2], [7, 9])} for _ in range(N_CROPS)])
        path = root / f"{position}.pth.tar"
        if how == "joblib":
            path.write_bytes(zlib.compress(pickle.dumps(sample, protocol=4), 3))
        else:
            torch.save(sample, path, pickle_protocol=4, _use_new_zipfile_serialization=how == "zip")
    torch.save({"reinforce": {"num_samples": N_CROPS, "topk": 2}}, root / "config.pth.tar")
    return root


def write_tinyvit(root: Path, k: int = 3) -> Path:
    for epoch in range(2):
        folder = root / f"logits_top{k}_epoch{epoch}"
        folder.mkdir(parents=True)
        (folder / "rank0-keys.txt").write_text("n01440764/n01440764_10026\nn01440764/n01440764_10027\n")
        record = struct.pack(f"<i{k}h{k}e", 12345, *range(k), *(0.5**rank for rank in range(1, k + 1)))
        (folder / "rank0-values.bin").write_bytes(record * 2)
    return root


EXAMPLES = {
    "fkd": [
        write_fkd,
        lambda root: write_fkd(root, is_zip=False),
        lambda root: write_fkd(root, is_half=True) / "imagenet" / "train",
        lambda root: write_fkd(root) / "imagenet" / "train" / "n01440764",
        lambda root: write_fkd(root) / "imagenet" / "train" / "n01440764" / "n01440764_10026.tar",
    ],
    "dataset-dr": [
        write_dataset_dr,
        lambda root: write_dataset_dr(root, how="legacy"),
        lambda root: write_dataset_dr(root, how="joblib"),
    ],
    "tinyvit": [write_tinyvit, lambda root: write_tinyvit(root, 100) / "logits_top100_epoch1"],
}
CASES = [
    pytest.param(form, write, id=f"{form}-{at}")
    for form in EXAMPLES
    for at, write in enumerate(EXAMPLES[form])
]


@pytest.mark.parametrize(("form", "write"), CASES)
def test_each_is_recognised_as_itself_and_as_nothing_else(tmp_path: Path, form: str, write) -> None:
    location = write(tmp_path / "labels")
    ours = {**FORMS, "npz": npz, "npy": npy_folder}
    assert [name for name, module in ours.items() if module.recognise(location)] == [form]


@pytest.mark.parametrize(
    ("form", "held"),
    [
        ("fkd", r"probabilities of random crops.*FKD's own loader"),
        ("dataset-dr", r"augmented, perhaps mixed, crops.*ml-dr's own loader"),
        ("tinyvit", r"a random seed only.*TinyViT's own loader"),
    ],
)
def test_each_is_refused_with_what_it_holds_and_what_to_do(tmp_path: Path, form: str, held: str) -> None:
    location = EXAMPLES[form][0](tmp_path / "labels")
    for name in (None, form):
        with pytest.raises(LabelSourceError, match=rf"{held}.*relabel-store build"):
            formats.open_source(location, name, SourceOptions())


def ordinary_tars(root: Path) -> None:
    (root / "n01440764").mkdir()
    with tarfile.open(root / "n01440764" / "images.tar", "w") as tar:
        tar.add(__file__, "a.jpg")


def relabel_tree(root: Path) -> None:
    (root / "n01440764").mkdir()
    torch.save(torch.zeros(2, 5, 3, 3), root / "n01440764" / "a.pt")
    torch.save(torch.zeros(2, 5, 3, 3), root / "n01440764" / "b.tar")


def checkpoints(root: Path) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(2)}}, root / "0.pth.tar")
    torch.save({"lr": 0.1}, root / "config.pth.tar")


def other_records(root: Path) -> None:
    (root / "logits_top3_epoch0").mkdir()
    (root / "logits_top3_epoch0" / "rank0-values.bin").write_bytes(bytes(17))
    (root / "logits_top3_epoch0" / "rank0-keys.txt").write_text("a\n")


def no_files(root: Path) -> None:
    (root / "a" / "b").mkdir(parents=True)


def notes(root: Path) -> None:
    (root / "config.pth.tar").write_text("notes")
    (root / "0.pth.tar").write_bytes(b"\x80\x02")
    (root / "1.tar").write_bytes(b"")
    (root / "rank0-values.bin").write_bytes(b"")


@pytest.mark.parametrize("make", [ordinary_tars, relabel_tree, checkpoints, other_records, no_files, notes])
def test_other_folders_are_taken_for_none_of_them(tmp_path: Path, make) -> None:
    make(tmp_path)
    assert [name for name, module in FORMS.items() if module.recognise(tmp_path)] == []


@pytest.mark.parametrize("module", FORMS.values(), ids=FORMS)
def test_what_is_not_there_or_far_away_is_not_recognised(tmp_path: Path, module) -> None:
    assert not module.recognise(tmp_path / "nothing")
    assert not module.recognise("s3://bucket/labels")


def test_looking_at_a_file_runs_none_of_its_code(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    (tmp_path / "config.pth.tar").write_bytes(b"")
    (tmp_path / "0.pth.tar").write_bytes(pickle.dumps(["params", "prob", Trap()], protocol=2))
    assert dataset_dr.recognise(tmp_path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("cut", range(0, 900, 60))
def test_files_cut_anywhere_are_looked_at_without_an_error(tmp_path: Path, cut: int) -> None:
    for how in ("zip", "legacy", "joblib"):
        data = (write_dataset_dr(tmp_path / how, how=how) / "0.pth.tar").read_bytes()
        (tmp_path / "cut").write_bytes(data[:cut])
        assert words_in(tmp_path / "cut") <= words_in(tmp_path / how / "0.pth.tar")

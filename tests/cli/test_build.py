from __future__ import annotations

import json
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from relabel_store.cli.main import main

from relabel_store.store.reader import open_store

from_factory = ("--teacher", "relabel_store.generate.toy:make_colour_teacher", "--workers", "0")
Run = Callable[..., Result]


def test_a_folder_becomes_a_store(run: Run, photos: Path, tmp_path: Path):
    result = run("build", *from_factory, "--images", photos, "--out", tmp_path / "s")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"{tmp_path / 's'}: complete, 6 images labelled",
        "  agreement  100.0% of 6 images: the pooled label is the folder's class",
    ]
    assert result.stderr == ""
    assert open_store(tmp_path / "s").is_complete


def test_options_reach_the_manifest(run: Run, photos: Path, tmp_path: Path):
    options = [
        "--top-k",
        "2",
        "--value-step",
        "exact",
        "--absent",
        "rest",
        "--shard-rows",
        "4",
        "--name",
        "n",
    ]
    options += [
        "--licence",
        "CC0-1.0",
        "--citation",
        "a",
        "--citation",
        "b",
        "--batch-size",
        "2",
        "--limit",
        "5",
    ]
    options += ["--device", "cpu", "--precision", "bf16"]
    assert run("build", *from_factory, "--images", photos, "--out", tmp_path / "s", *options).exit_code == 0
    manifest = open_store(tmp_path / "s").manifest
    assert (manifest.label_map.k, manifest.label_map.value_step, manifest.label_map.absent) == (
        2,
        "exact",
        "rest",
    )
    assert (manifest.name, manifest.licence, manifest.citation) == ("n", "CC0-1.0", ("a", "b"))
    assert (manifest.layout.shard_rows, manifest.build.batch_size, manifest.num_samples) == (4, 2, 5)
    assert (manifest.teacher.precision, manifest.teacher.device) == ("bf16", "cpu")


def test_a_dry_run_says_what_a_build_takes_and_writes_nothing(run: Run, photos: Path, tmp_path: Path):
    options = ("--images", photos, "--out", tmp_path / "s", "--shard-rows", "4", "--dry-run")
    result = run("build", *from_factory, *options)
    assert result.exit_code == 0
    assert not (tmp_path / "s").exists()
    first, *fields, last = result.stdout.splitlines()
    assert first == f"{tmp_path / 's'}: dry run, no store is made"
    found = dict(line.strip().split(maxsplit=1) for line in fields)
    assert list(found) == ["rows", "parts", "left", "size", "memory", "speed", "time"]
    assert found["rows"] == "6, 3x3 cells, top 5 of 6"
    assert found["parts"] == "2 parts of 4 rows"
    assert found["left"] == "here  6 rows in 2 parts"
    assert last.startswith("bottleneck: ")


def test_a_dry_run_of_a_finished_store_says_so(run: Run, photos: Path, tmp_path: Path):
    options = ("--images", photos, "--out", tmp_path / "s")
    assert run("build", *from_factory, *options).exit_code == 0
    result = run("build", *from_factory, *options, "--dry-run")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 's'}: dry run, complete\n")


def test_a_dry_run_answers_1_where_the_disk_is_too_small(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))
    result = run("build", *from_factory, "--images", photos, "--out", tmp_path / "s", "--dry-run")
    assert result.exit_code == 1
    assert "10 B free; too little, " in result.stdout


def test_bad_images_are_listed_and_exit_with_1(run: Run, photos: Path, tmp_path: Path):
    (photos / "red" / "1.png").write_bytes(b"")
    build = ("build", *from_factory, "--images", photos, "--out", tmp_path / "s")
    result = run(*build)
    assert result.exit_code == 1
    assert "complete, 5 images labelled" in result.stdout
    assert "1 image without a label:\n  'red/1.png': empty file\n" in result.stdout
    shutil.copy(photos / "red" / "0.png", photos / "red" / "1.png")
    assert run(*build).exit_code == 1
    assert run(*build, "--on-bad-image", "retry").exit_code == 0


def test_a_bad_image_can_stop_the_build(run: Run, photos: Path, tmp_path: Path):
    (photos / "red" / "1.png").write_bytes(b"")
    result = run(
        "build", *from_factory, "--images", photos, "--out", tmp_path / "s", "--on-bad-image", "stop"
    )
    assert result.exit_code == 3
    assert result.stderr.startswith("Error: image 'red/1.png': empty file; mend or remove it")


def test_shares_leave_parts_to_the_others(run: Run, photos: Path, tmp_path: Path):
    build = (
        "build",
        *from_factory,
        "--images",
        photos,
        "--out",
        tmp_path / "s",
        "--shard-rows",
        "2",
        "--share",
    )
    first = run(*build, "1/2")
    assert (first.exit_code, first.stdout) == (
        0,
        f"{tmp_path / 's'}: 2 images labelled, 2 parts left to other shares\n",
    )
    assert "complete, 6 images labelled" in run(*build, "0/2").stdout


def test_a_log_file_is_written_without_a_terminal(run: Run, photos: Path, tmp_path: Path):
    log = tmp_path / "build.log"
    result = run("build", *from_factory, "--images", photos, "--out", tmp_path / "s", "--log", log)
    assert result.exit_code == 0
    lines = log.read_text().splitlines()
    assert any("6 images in 'photos'" in line for line in lines)
    assert any("identity error" in line for line in lines)
    assert any("part 0 of 1 finished" in line for line in lines)


def test_a_log_inside_the_store_is_refused(run: Run, photos: Path, tmp_path: Path):
    out = tmp_path / "s"
    result = run("build", *from_factory, "--images", photos, "--out", out, "--log", out / "build.log")
    assert result.exit_code == 2
    assert "write it elsewhere" in result.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--value-step", "0.3", "power of two"),
        ("--value-step", "fine", "power of two"),
        ("--mean", "1,2", "one or three"),
        ("--std", "a", "one number or three"),
        ("--share", "8/8", "0/N to N-1/N"),
        ("--absent", "none", "zero"),
        ("--precision", "int8", "bf16"),
        ("--on-bad-image", "ignore", "record"),
        ("--shard-rows", "300", "multiple of 256"),
        ("--top-k", "7", "expected at most 6"),
        ("--out", "", "an empty path"),
    ],
)
def test_a_wrong_value_is_wrong_usage(
    run: Run, photos: Path, tmp_path: Path, option: str, value: str, message: str
):
    result = run("build", *from_factory, "--images", photos, "--out", tmp_path / "s", option, value)
    assert result.exit_code == 2
    assert message.lower() in result.stderr.lower().replace("\n", " ")
    assert not (tmp_path / "s").exists()


def test_one_number_stands_for_three_channels(photos: Path, tmp_path: Path):
    command = main.get_command(None, "build")
    context = command.make_context(
        "build",
        ["--teacher", "t", "--images", str(photos), "--out", "o", "--mean", "0.5", "--std", "0.1,0.2,0.3"],
    )
    assert context.params["mean"] == (0.5, 0.5, 0.5)
    assert context.params["std"] == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "neither RANK and WORLD_SIZE (of torchrun) nor SLURM_ARRAY_TASK_ID"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "share: 2/2, expected 0/N to N-1/N"),
        ({"RANK": "two", "WORLD_SIZE": "2"}, "RANK is 'two', expected a whole number"),
    ],
    ids=["none", "past-the-end", "no-number"],
)
def test_a_share_that_the_environment_does_not_give_is_wrong_usage(
    run: Run,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    message: str,
):
    for name in ("RANK", "WORLD_SIZE", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = run("build", *from_factory, "--images", photos, "--out", tmp_path / "s", "--share", "auto")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "MISSING"], "nothing there"),
        (["--images", ""], "an empty path"),
        (["--teacher", "resnet5O"], "near it: "),
        (["--out", "PHOTOS"], "no part of a store"),
        (["--device", "cuda:77"], "CUDA devices are visible"),
    ],
    ids=["images", "no-images", "teacher", "out", "device"],
)
def test_a_mistake_gets_one_line(run: Run, photos: Path, tmp_path: Path, arguments: list[str], message: str):
    places = {"MISSING": str(tmp_path / "missing"), "PHOTOS": str(photos)}
    given = [places.get(argument, argument) for argument in arguments]
    result = run("build", *from_factory, "--images", photos, "--out", tmp_path / "s", *given)
    assert result.exit_code == 3
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_quiet_builds_say_only_the_answer(run: Run, photos: Path, tmp_path: Path):
    result = run("-q", "build", *from_factory, "--images", photos, "--out", tmp_path / "s")
    assert result.stderr == ""
    assert json.loads((tmp_path / "s" / "complete.json").read_bytes())["parts"]


def test_a_factory_is_found_in_the_folder_it_is_run_in(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "a_teacher_of_mine.py").write_text(
        "from relabel_store.generate.toy import make_colour_teacher as make\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    teacher = ("--teacher", "a_teacher_of_mine:make", "--workers", "0")
    assert run("build", *teacher, "--images", photos, "--out", "s").exit_code == 0


def test_the_log_says_how_a_build_ended(run: Run, photos: Path, tmp_path: Path):
    log = tmp_path / "build.log"
    arguments = ("--images", photos, "--out", tmp_path / "s", "--log", log)
    assert run("build", *from_factory, *arguments).exit_code == 0
    assert "complete, 6 images labelled" in log.read_text()
    assert run("build", *from_factory, *arguments, "--top-k", "2").exit_code == 3
    assert "ERROR ended: store 'photos, colours' was begun with other labels" in log.read_text()


@pytest.mark.parametrize("path", ["s/build.log", "elsewhere/../s/build.log"])
def test_no_log_is_written_into_a_store(path: str, run: Run, photos: Path, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    out = tmp_path / "s"
    assert run("build", *from_factory, "--images", photos, "--out", out).exit_code == 0
    result = run("build", *from_factory, "--images", photos, "--out", out, "--log", tmp_path / path)
    assert result.exit_code == 2
    assert not (out / "build.log").exists()


def test_a_profile_names_the_stages_and_the_bottleneck(run: Run, photos: Path, tmp_path: Path):
    arguments = ("build", *from_factory, "--images", photos, "--out", tmp_path / "s", "--profile")
    lines = run(*arguments).stdout.splitlines()
    head = next(at for at, line in enumerate(lines) if line.startswith("STAGE"))
    stages = [line[:17].strip() for line in lines[head + 1 : -2]]
    assert stages[:3] == ["read", "decode", "wait for images"]
    assert {"forward", "encode", "write"} <= set(stages)
    assert lines[-2].startswith("6 images in ")
    assert lines[-1].startswith("bottleneck: ")
    assert run(*arguments).stdout.splitlines()[-1] == "profile: nothing was labelled by this run"


def test_a_teacher_that_cannot_be_compiled_is_a_mistake(run: Run, photos: Path, tmp_path: Path):
    result = run("build", *from_factory, "--images", photos, "--out", tmp_path / "s", "--compile")
    assert result.exit_code == 3
    assert "leave the option out" in result.stderr


def test_what_was_recognised_is_said_on_stderr(run: Callable[..., Result], photos: Path, tmp_path: Path):
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        tar.add(photos, arcname="photos")
    build = (
        "build",
        "--teacher",
        "relabel_store.generate.toy:make_colour_teacher",
        "--images",
        tmp_path / "photos.tar",
        "--out",
    )
    result = run(*build, tmp_path / "a.zarr")
    assert "6 images in 'photos' (tar), sample ids from paths below 'photos/'" in result.stderr
    assert (tmp_path / "a.zarr.tar-index" / "index.json").exists()
    assert run("-q", *build, tmp_path / "b.zarr").stderr == ""
    plot = ("--images", tmp_path / "photos.tar", "--plot", tmp_path / "red.png")
    assert run("inspect", tmp_path / "a.zarr", "red/0", *plot).exit_code == 0
    assert (tmp_path / "red.png").read_bytes().startswith(b"\x89PNG")


def test_images_without_paths_are_said_to_be_joined_by_digest(run: Run, photos: Path, tmp_path: Path):
    images = pa.array([path.read_bytes() for path in sorted(photos.rglob("*.png"))])
    pq.write_table(pa.table({"image": images}), tmp_path / "photos.parquet")
    where = ("--images", tmp_path / "photos.parquet", "--out", tmp_path / "s")
    result = run("build", *from_factory, *where, "--dry-run")
    assert "sample ids from positions, which a folder of the same images need not have" in result.stderr

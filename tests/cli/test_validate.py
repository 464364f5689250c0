from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from click.testing import Result

from relabel_store.schema import load_schema
from relabel_store.testing import make_manifest, make_store

Run = Callable[..., Result]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[9] ^= 1
    path.write_bytes(data)


def test_a_valid_store_is_one_line_and_exits_with_0(run: Run, store: Path):
    result = run("validate", store)
    assert result.exit_code == 0
    assert result.stdout == f"{store}: valid (structure, content, sense)\n"
    assert result.stderr == ""


def test_errors_exit_with_1_and_say_where_what_and_what_to_do(run: Run, store: Path):
    flip(store / "values/c/1/0/0/0")
    result = run("validate", store)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0] == f"{store}: not valid: 1 error (structure, content, sense)"
    assert lines[2].startswith("error RS601 [F51, F60, F64]: The files of a part have the size and SHA-256")
    assert lines[3].startswith("  'values/c/1/0/0/0': SHA-256 ")
    assert lines[3].endswith(
        "it is damaged, or of another store: restore it from a copy, or build its part again"
    )
    assert lines[5:] == ["not checked:", "  statistics: not every part could be counted"]


@pytest.mark.parametrize(
    ("level", "exit_code", "levels"), [("structure", 0, "structure"), ("content", 1, "content, sense")]
)
def test_a_level_can_be_chosen(run: Run, store: Path, level: str, exit_code: int, levels: str):
    flip(store / "values/c/1/0/0/0")
    result = run("validate", store, "--level", level)
    assert result.exit_code == exit_code
    assert f"({levels})" in result.stdout.splitlines()[0]


def test_an_unknown_level_is_wrong_usage(run: Run, store: Path):
    assert run("validate", store, "--level", "soul").exit_code == 2


def test_warnings_are_errors_where_that_is_asked_for(run: Run, tmp_path: Path, rng: np.random.Generator):
    make_store(tmp_path / "s", rng, make_manifest(shard_rows=64, chunk_rows=2))
    result = run("validate", tmp_path / "s")
    assert result.exit_code == 0
    assert result.stdout.startswith(
        f"{tmp_path / 's'}: valid: 1 warning (structure, content, sense)\n\nwarning RS212"
    )
    assert run("validate", tmp_path / "s", "--strict").exit_code == 1


def test_a_store_that_is_being_built_says_so(run: Run, tmp_path: Path, rng: np.random.Generator):
    make_store(tmp_path / "s", rng, parts=[0])
    result = run("validate", tmp_path / "s")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0].endswith(
        "not valid, still being built: 1 error (structure, content, sense)"
    )
    assert "run the same build again to finish it" in result.stdout


@pytest.mark.parametrize("is_sound", [True, False])
def test_json_is_one_document_with_a_schema(run: Run, store: Path, is_sound: bool):
    if not is_sound:
        (store / "notes.txt").write_text("mine")
    result = run("validate", store, "--json")
    assert result.exit_code == (0 if is_sound else 1)
    document = json.loads(result.stdout)
    jsonschema.validate(document, load_schema("validate-v1"))
    assert document["is_valid"] is is_sound
    assert document["files"] == ([] if is_sound else ["notes.txt"])


def test_many_places_are_a_few_lines(run: Run, store: Path):
    for number in range(50):
        (store / f"note {number}.txt").write_text("mine")
    lines = run("validate", store).stdout.splitlines()
    assert lines[0].endswith("not valid: 50 errors (structure, content, sense)")
    assert len(lines) == 7
    assert lines[-1] == "  and 47 more"


def test_what_cannot_be_read_exits_with_3(run: Run, tmp_path: Path):
    result = run("validate", tmp_path / "nothing")
    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr.startswith(f"Error: store {str(tmp_path / 'nothing')!r}: nothing, expected a store")
    result = run("validate", "s3://key:secret@bucket/labels.zarr")
    assert result.exit_code == 2
    assert "secret" not in result.stderr


def test_no_progress_is_shown_where_stderr_is_no_terminal(run: Run, store: Path):
    assert run("-q", "validate", store).stderr == ""


TOY = ("--teacher", "relabel_store.generate.toy:make_colour_teacher", "--workers", "0", "--shard-rows", "4")


@pytest.mark.parametrize("name", ["s.zarr", "s.parquet"])
@pytest.mark.parametrize(
    "options", [(), ("--absent", "rest", "--value-step", "exact", "--flip")], ids=["", "rest"]
)
def test_what_build_makes_is_valid(
    run: Run, photos: Path, tmp_path: Path, name: str, options: tuple[str, ...]
):
    (photos / "red" / "broken.png").write_bytes(b"no picture")
    assert run("build", *TOY, *options, "--images", photos, "--out", tmp_path / name).exit_code == 1
    result = run("validate", tmp_path / name, "--strict")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / name}: valid (structure, content, sense)\n")


@pytest.mark.parametrize("name", ["s.zarr", "s.parquet"])
def test_what_a_share_of_a_build_makes_is_unfinished_and_nothing_else(
    run: Run, photos: Path, tmp_path: Path, name: str
):
    run("build", *TOY, "--images", photos, "--out", tmp_path / name, "--share", "0/2")
    document = json.loads(run("validate", tmp_path / name, "--json").stdout)
    assert [group["id"] for group in document["findings"]] == ["RS101"]
    assert document["state"] == "building"


def test_images_of_a_list_are_valid_too(run: Run, photos: Path, tmp_path: Path):
    lines = [
        "path,label",
        *(f"{path.relative_to(tmp_path)},{path.parent.name}" for path in photos.rglob("*.png")),
    ]
    (tmp_path / "list.csv").write_text("\n".join(lines[:1] + lines[:0:-1]))
    run("build", *TOY, "--images", tmp_path / "list.csv", "--out", tmp_path / "s")
    assert run("validate", tmp_path / "s", "--strict").exit_code == 0

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from relabel_store.generate.toy import build_colours
from relabel_store.schema import schema_errors
from relabel_store.testing import file_digests

FACTORY = "relabel_store.generate.toy:make_colour_teacher"
Run = Callable[..., Result]


@pytest.fixture
def colours(photos: Path, tmp_path: Path) -> Path:
    build_colours(photos, tmp_path / "c")
    return tmp_path / "c"


def lose(store: Path) -> Path:
    lost = store / "values" / "c" / "1" / "0" / "0" / "0"
    lost.unlink()
    return lost


def test_a_lost_shard_is_labelled_again(run: Run, colours: Path, photos: Path) -> None:
    before = file_digests(colours)
    lose(colours)
    result = run("repair", colours, "--images", photos, "--teacher", FACTORY, "--workers", 0)
    assert result.exit_code == 0, result.output
    assert "part 1: store file 'values/c/1/0/0/0': missing, expected" in result.stdout
    assert "labelled again, the same bytes" in result.stdout
    assert result.stdout.endswith(f"{colours}: repaired\n")
    assert file_digests(colours) == before


def test_a_store_that_is_whole_needs_nothing(run: Run, colours: Path) -> None:
    result = run("repair", colours)
    assert (result.exit_code, result.stdout) == (0, f"{colours}: nothing is damaged\n")


def test_what_is_still_wrong_is_listed_and_the_answer_is_no(run: Run, colours: Path) -> None:
    lose(colours)
    result = run("repair", colours)
    assert result.exit_code == 1
    assert "still wrong: 'values/c/1/0/0/0': missing" in result.stdout
    assert "--images" in result.stdout
    assert "--drop" in result.stdout


def test_what_cannot_be_repaired_is_an_error(run: Run, colours: Path, photos: Path) -> None:
    lose(colours)
    result = run("repair", colours, "--images", photos)
    assert result.exit_code == 3
    assert "give it with --teacher module:factory" in result.stderr
    assert result.stdout == ""


def test_a_teacher_without_images_is_wrong_usage(run: Run, colours: Path) -> None:
    result = run("repair", colours, "--teacher", FACTORY)
    assert result.exit_code == 2
    assert "without images to label" in result.stderr


def test_the_report_follows_its_schema(run: Run, colours: Path) -> None:
    lose(colours)
    (colours / "rest").mkdir()
    (colours / "rest" / "stranger").write_text("1")
    (colours / "indices" / "zarr.json").unlink()
    result = run("repair", colours, "--drop", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert list(schema_errors(document, "repair-v1")) == []
    assert document["files"] == ["indices/zarr.json"]
    assert [(part["rows"], part["remedy"]) for part in document["parts"]] == [([4, 6], "dropped")]
    assert document["digest_before"] != document["digest_after"]
    assert len(document["left"]) == 1
    assert "rest/stranger" in document["left"][0]
    assert not document["is_whole"]


def test_a_root_that_is_made_anew_is_told_with_both_digests(run: Run, photos: Path, tmp_path: Path) -> None:
    build_colours(photos, tmp_path / "c", encoding="parquet")
    path = tmp_path / "c" / "complete.json"
    digest = json.loads(path.read_bytes())["digest"]
    other = f"sha256:{'0' * 64}"
    path.write_bytes(path.read_bytes().replace(digest.encode(), other.encode()))
    result = run("repair", tmp_path / "c")
    assert result.exit_code == 0, result.output
    assert (
        f"made anew from the files as they are: digest {digest}, recorded before: {other}." in result.stdout
    )
    assert "no proof" in result.stdout

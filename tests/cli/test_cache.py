from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from relabel_store.schema import schema_errors

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RELABEL_STORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_store_is_added_listed_and_cleared(run: Run, store: Path, cache_dir: Path) -> None:
    added = run("cache", "add", store)
    assert added.exit_code == 0
    assert Path(added.stdout.strip()).parent == cache_dir
    lines = run("cache", "list").stdout.splitlines()
    assert lines[0].split() == ["STORE", "LABEL", "MAPS", "SIZE", "LAST", "USED", "DIGEST"]
    assert lines[1].split()[:2] == ["made-up", "8"]
    assert lines[1].split()[-1] == Path(added.stdout.strip()).name[:12]
    assert str(cache_dir) in lines[2]
    cleared = run("cache", "clear", store)
    assert cleared.exit_code == 0
    assert cleared.stdout.startswith("1 materialized store removed")
    assert run("cache", "list").stdout == f"{cache_dir}: no materialized stores\n"


def test_the_json_list_follows_its_schema(run: Run, store: Path) -> None:
    run("cache", "add", store)
    document = json.loads(run("cache", "list", "--json").stdout)
    assert list(schema_errors(document, "cache-list-v1")) == []
    assert document["entries"][0]["num_samples"] == 8


def test_another_directory_can_be_named(run: Run, store: Path, tmp_path: Path, cache_dir: Path) -> None:
    run("cache", "add", store, "--cache-dir", tmp_path / "other")
    assert not cache_dir.exists()
    assert run("cache", "clear", "--all", "--cache-dir", tmp_path / "other").exit_code == 0
    assert not [path for path in (tmp_path / "other").iterdir() if path.is_dir()]


@pytest.mark.parametrize("arguments", [[], ["--all", "s.zarr"]], ids=["neither", "both"])
def test_clear_is_told_what_to_remove(arguments: list[str], run: Run) -> None:
    result = run("cache", "clear", *arguments)
    assert result.exit_code == 2
    assert "expected stores or --all" in result.stderr


def test_a_name_that_fits_nothing_is_wrong_usage(run: Run) -> None:
    result = run("cache", "clear", "abc")
    assert result.exit_code == 2
    assert "'abc' fits 0 entries" in result.stderr


def test_verify_is_taken(run: Run, store: Path) -> None:
    run("cache", "add", store)
    assert run("cache", "add", store, "--verify").exit_code == 0

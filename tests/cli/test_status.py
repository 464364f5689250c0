from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
from click.testing import Result

from relabel_store.schema import load_schema
from relabel_store.store.location import open_files
from relabel_store.store.running import FailedPart, RunningNotes, note_failure

Run = Callable[..., Result]
toy = ("--teacher", "relabel_store.generate.toy:make_colour_teacher", "--workers", "0", "--shard-rows", "2")


def test_an_unfinished_store_says_who_is_at_it(run: Run, photos: Path, tmp_path: Path):
    store = tmp_path / "s"
    assert run("build", *toy, "--images", photos, "--out", store, "--share", "0/3").exit_code == 0
    assert "nobody is at work" in run("status", store).stdout
    RunningNotes(open_files(store)).begin(1)
    lines = run("status", store).stdout.splitlines()
    assert lines[0].endswith("being built, 1 of 3 parts, 2 of 6 images")
    assert lines[1].startswith("how fast that is will be known")
    assert lines[2].split() == ["PART", "WORKER", "SINCE", "ATTEMPT", "IMAGES/S", "STATE"]
    assert lines[3].split()[-1] == "running"
    document = json.loads(run("status", store, "--json").stdout)
    jsonschema.validate(document, load_schema("status-v1"))
    assert [worker["part"] for worker in document["workers"]] == [1]


def test_an_interrupted_build_has_nobody_at_work(run: Run, photos: Path, tmp_path: Path):
    store = tmp_path / "s"
    run("build", *toy, "--images", photos, "--out", store, "--share", "0/3")
    leave_note = (  # in a process that is gone then, as after kill -9
        "from relabel_store.store.location import open_files\n"
        "from relabel_store.store.running import RunningNotes\n"
        f"RunningNotes(open_files({str(store)!r})).begin(1)"
    )
    subprocess.run([sys.executable, "-P", "-c", leave_note], check=True)
    lines = run("status", store).stdout.splitlines()
    assert lines[1] == "nobody is at work any more; run the same build again to go on"
    assert lines[3].split()[-1] == "dead"


def test_parts_that_were_given_up_are_a_no(run: Run, photos: Path, tmp_path: Path):
    store = tmp_path / "s"
    run("build", *toy, "--images", photos, "--out", store, "--share", "0/3")
    note_failure(open_files(store), FailedPart(2, 5, "Traceback:\n  in f\nValueError: no\n"))
    result = run("status", store)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "part 2 was given up after 5 attempts: ValueError: no"


def test_a_finished_store_has_nobody(run: Run, photos: Path, tmp_path: Path):
    store = tmp_path / "s"
    run("build", *toy, "--images", photos, "--out", store)
    result = run("status", store)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].endswith("complete, 3 of 3 parts, 6 of 6 images")
    assert len(result.stdout.splitlines()) == 1

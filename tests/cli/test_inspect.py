from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from relabel_store.manifest import Compression, Encoding
from relabel_store.schema import schema_errors
from relabel_store.testing import make_manifest, make_store

Run = Callable[..., Result]


def test_a_store_is_shown_in_one_screen(run: Run, store: Path):
    result = run("inspect", store)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) <= 24
    for text in (
        "3x3 cells, top 2 of 5 classes",
        "7 samples labelled, 1 without a label",
        "bytes a sample",
        "agreement",
    ):
        assert text in result.stdout
    assert result.stderr == ""


def test_a_store_that_is_being_built_says_how_far_it_is(run: Run, tmp_path: Path, rng: np.random.Generator):
    make_store(tmp_path / "s", rng, make_manifest(10), parts=[1])
    assert (
        "building, 4 samples labelled, 6 not yet (1 of 3 parts finished)"
        in run("inspect", tmp_path / "s").stdout
    )
    make_store(tmp_path / "t", rng, make_manifest(10), parts=[])
    assert (
        "building, 0 samples labelled, 10 not yet (0 of 3 parts finished)"
        in run("inspect", tmp_path / "t").stdout
    )


@pytest.mark.parametrize("arguments", [[], ["cat/photo 0001"]], ids=["store", "sample"])
def test_json_follows_its_schema(run: Run, store: Path, arguments: list[str]):
    result = run("inspect", store, *arguments, "--json")
    assert result.exit_code == 0
    schema = "inspect-sample-v1" if arguments else "inspect-v1"
    assert list(schema_errors(json.loads(result.stdout), schema)) == []


@pytest.mark.parametrize("compression", Compression)
@pytest.mark.parametrize("encoding", ["zarr", "parquet", "packed"])
def test_the_form_of_a_store_is_shown(
    run: Run, tmp_path: Path, rng: np.random.Generator, encoding: str, compression: Compression
):
    manifest = replace(make_manifest(), encoding=Encoding.of(encoding, compression))
    make_store(tmp_path / "s", rng, manifest)
    assert f"1.0, {encoding} 1.0, compression {compression}" in run("inspect", tmp_path / "s").stdout
    document = json.loads(run("inspect", tmp_path / "s", "--json").stdout)
    assert list(schema_errors(document, "inspect-v1")) == []
    assert document["form"] == {
        "encoding": encoding,
        "version": "1.0",
        "compression": compression.value,
        "value_step": 0.125,
    }


def test_sizes_are_those_on_disk(run: Run, store: Path):
    sizes = json.loads(run("inspect", store, "--json").stdout)["size_bytes"]
    for name in ("indices", "values"):
        assert sizes[name] == sum(
            path.stat().st_size for path in (store / name / "c").rglob("*") if path.is_file()
        )
    assert sizes["total"] == sum(path.stat().st_size for path in store.rglob("*") if path.is_file())


def test_a_sample_is_shown_by_area(run: Run, store: Path):
    result = run("inspect", store, "cat/photo 0001")
    assert result.exit_code == 0
    assert "cat (class 0)" in result.stdout
    shares = [
        float(line.split("%")[0]) for line in result.stdout.splitlines() if line.endswith(")") and "%" in line
    ]
    assert sum(shares) == pytest.approx(100, abs=0.5)
    assert shares == sorted(shares, reverse=True)


def test_a_sample_without_a_label_says_why(run: Run, store: Path):
    result = run("inspect", store, "cat/photo 0007")
    assert result.exit_code == 3
    assert "truncated" in result.stderr


def test_an_unknown_sample_names_what_is_near(run: Run, store: Path):
    result = run("inspect", store, "cat/photo 0001.jpg")
    assert result.exit_code == 3
    assert "near it: 'cat/photo 0001'" in result.stderr


def test_a_plot_is_a_picture(run: Run, store: Path, tmp_path: Path):
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    Image.new("RGB", (500, 375), "orange").save(tmp_path / "photos" / "cat" / "photo 0001.jpg")
    plot = tmp_path / "p.png"
    result = run("inspect", store, "cat/photo 0001", "--images", tmp_path / "photos", "--plot", plot)
    assert result.exit_code == 0
    assert f"picture: {plot}" in result.stdout
    with Image.open(plot) as picture:
        assert picture.width > 1000
    assert "not the file that was labelled" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--plot", "p.png"], 2, "SAMPLE_ID"),
        (["cat/photo 0001", "--plot", "p.png"], 2, "--images and --plot together"),
        (["cat/photo 0001", "--images", "PHOTOS"], 2, "--images and --plot together"),
        (["cat/photo 0001", "--images", "PHOTOS", "--plot", "p.jpg"], 2, "png"),
        (["cat/photo 0003", "--images", "PHOTOS", "--plot", "OUT/p.png"], 3, "not among the 1 images"),
        (["cat/photo 0001", "--images", "OUT/nothing", "--plot", "OUT/p.png"], 3, "nothing there"),
    ],
    ids=["no sample", "no images", "no plot", "no png", "another sample", "missing images"],
)
def test_a_plot_that_cannot_be_drawn_says_why(
    run: Run, store: Path, tmp_path: Path, arguments: list[str], status: int, message: str
):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat").mkdir()
    Image.new("RGB", (50, 37)).save(tmp_path / "photos" / "cat" / "photo 0001.jpg")
    given = [
        part.replace("PHOTOS", str(tmp_path / "photos")).replace("OUT", str(tmp_path)) for part in arguments
    ]
    result = run("inspect", store, *given)
    assert result.exit_code == status
    assert message in result.stderr
    assert not list(tmp_path.glob("*.png"))


def test_no_picture_is_written_into_a_store(run: Run, store: Path, tmp_path: Path):
    result = run("inspect", store, "cat/photo 0001", "--images", tmp_path, "--plot", store / "p.png")
    assert result.exit_code == 2
    assert "a store holds nothing but itself" in result.stderr

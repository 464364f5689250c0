from __future__ import annotations

import json

import numpy as np
import pytest

from relabel_store.manifest import AbsentRule
from relabel_store.schema import schema_errors
from relabel_store.store.reader import open_store
from relabel_store.store.writer import StoreWriter
from relabel_store.testing import make_label_maps, make_manifest, make_part, make_samples, make_store


@pytest.fixture
def labels(tmp_path, rng: np.random.Generator):
    make_store(tmp_path / "a.zarr", rng)
    return tmp_path / "a.zarr"


def test_a_store_is_converted_by_the_end_of_its_new_name(run, tmp_path, labels) -> None:
    result = run("convert", labels, tmp_path / "b.parquet", "--workers", 1)
    assert result.exit_code == 0, result.output
    assert "8 samples from 'store' to 'parquet'" in result.stdout
    assert open_store(tmp_path / "b.parquet").manifest.encoding.compression == "fast"


def test_the_report_follows_its_schema(run, tmp_path, rng) -> None:
    make_store(tmp_path / "a.zarr", rng, bad_images={1: "truncated"})
    result = run("convert", tmp_path / "a.zarr", tmp_path / "b.parquet", "--json", "--workers", 1)
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert list(schema_errors(document, "convert-v1")) == []
    assert [missing["reason"] for missing in document["without_label"]] == ["truncated"]


def test_labels_of_no_known_form_could_not_be_converted(run, tmp_path) -> None:
    (tmp_path / "labels").mkdir()
    result = run("convert", tmp_path / "labels", tmp_path / "b.zarr")
    assert result.exit_code == 3
    assert "name its form with --from" in result.stderr
    assert result.stdout == ""


def test_a_target_without_a_form_is_wrong_usage(run, tmp_path, labels) -> None:
    result = run("convert", labels, tmp_path / "b")
    assert result.exit_code == 2
    assert "--to" in result.stderr


def test_what_users_of_a_form_should_know_is_said(run, tmp_path, rng) -> None:
    manifest = make_manifest(2)
    writer = StoreWriter.begin(tmp_path / "a.zarr", manifest, make_samples(manifest, ["a/b.c", "a/d"]))
    writer.write_part(0, make_part(manifest, make_label_maps(rng, manifest), 0))
    writer.complete()
    result = run("convert", tmp_path / "a.zarr", tmp_path / "b", "--to", "relabel", "--workers", 1)
    assert result.exit_code == 0, result.output
    assert "under another name, such as 'a/b.pt' instead of 'a/b.c.pt'" in result.stdout
    assert (tmp_path / "b" / "a" / "b.c.pt").is_file()


def test_labels_that_a_form_cannot_hold_are_wrong_usage(run, tmp_path, rng) -> None:
    make_store(tmp_path / "a.zarr", rng, make_manifest(absent=AbsentRule.REST))
    result = run("convert", tmp_path / "a.zarr", tmp_path / "b", "--to", "token-labeling")
    assert result.exit_code == 2
    assert "these labels have a rest" in result.stderr

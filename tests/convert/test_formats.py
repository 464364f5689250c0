from __future__ import annotations

import types
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from relabel_store.convert import formats
from relabel_store.convert.source import SourceOptions
from relabel_store.errors import LabelSourceError, OptionError


@pytest.fixture
def plug_ins(monkeypatch, store):
    """A package that brings a form of labels, and one to convert into."""
    source = types.ModuleType("their_source")
    source.recognise = lambda location: Path(location).suffix == ".theirs"
    source.open_source = lambda location, options: (location, options)
    target = types.ModuleType("their_target")
    target.SUFFIXES = (".cards",)
    target.open_target = lambda path: ("cards", path)
    for module in (source, target):
        monkeypatch.setitem(__import__("sys").modules, module.__name__, module)
    points = {
        formats.SOURCE_GROUP: [EntryPoint("theirs", "their_source", formats.SOURCE_GROUP)],
        formats.TARGET_GROUP: [EntryPoint("cards", "their_target", formats.TARGET_GROUP)],
    }
    monkeypatch.setattr(formats, "entry_points", lambda group: points[group])


def test_a_store_is_recognised(tmp_path, store) -> None:
    form, source = formats.open_source(tmp_path / "a.zarr", None, SourceOptions())
    assert form == "store"
    assert source.manifest.num_samples == 10


def test_forms_of_plug_ins_are_recognised_and_listed(tmp_path, plug_ins) -> None:
    assert formats.source_names()[-1] == "theirs"
    assert formats.open_source(tmp_path / "x.theirs", None, SourceOptions())[0] == "theirs"
    assert formats.target_names()[-1] == "cards"
    assert formats.target_named_by(tmp_path / "x.cards") == "cards"
    assert formats.target_maker("cards")(tmp_path) == ("cards", tmp_path)


def test_nothing_that_is_known_is_said_so(tmp_path) -> None:
    with pytest.raises(LabelSourceError, match=r"of none of the forms store.*name its form with --from"):
        formats.open_source(tmp_path, None, SourceOptions())


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "labels.tgz",
            b"\x1f\x8b\x08" + bytes(600),
            "a gzip file, expected a folder or a tar; .*decompress it",
        ),
        ("labels.tar", b"", "an empty file, expected a folder or a tar"),
        ("labels.tar", b"half of one" * 100, ".*, expected a whole tar file"),
        ("nothing", None, "nothing there, expected a folder or a tar"),
    ],
    ids=["gzip", "empty", "damaged", "nothing"],
)
def test_what_keeps_labels_from_being_recognised_is_said(tmp_path, name, content, reason) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(
        LabelSourceError, match=rf"labels '.*{name}': of none of the forms store, .*: {reason}"
    ):
        formats.open_source(tmp_path / name, None, SourceOptions())


def test_a_form_that_is_not_known_is_refused_with_those_that_are(tmp_path) -> None:
    with pytest.raises(OptionError, match=r"form 'stroe': is not known, expected one of store"):
        formats.open_source(tmp_path, "stroe", SourceOptions())
    with pytest.raises(OptionError, match=r"form 'cards': is not known, expected one of zarr, parquet"):
        formats.target_maker("cards")


@pytest.mark.parametrize(
    ("location", "form"),
    [("a.zarr", "zarr"), ("s3://bucket/a.parquet/", "parquet"), ("A.ZARR", "zarr")],
)
def test_the_end_of_a_path_names_the_form(location: str, form: str) -> None:
    assert formats.target_named_by(location) == form


def test_an_end_that_names_no_form_is_refused_with_those_that_do() -> None:
    with pytest.raises(OptionError, match=r"its end names no form, expected one of \.zarr, \.parquet"):
        formats.target_named_by("labels")

"""The page on exports does what it says: its commands and examples run, each with the library that it is for."""

from __future__ import annotations

import io
import re
import shlex
import tarfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from relabel_store.cli.main import main

from relabel_store.testing import make_manifest, make_sample_ids, make_store

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "export.md"
SECTIONS = dict(re.findall(r"^## ([\w-]+)\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.M | re.S))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of nine samples, and their images in class folders and in two shards."""
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path / "labels.zarr", np.random.default_rng(0), make_manifest(9))
    for number, ids in enumerate((make_sample_ids(9)[:5], make_sample_ids(9)[5:])):
        with tarfile.open(tmp_path / f"images-{number:06d}.tar", "w") as shard:
            for sample_id in ids:
                path = tmp_path / "photos" / f"{sample_id}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (40, 30)).save(path)
                member = tarfile.TarInfo(f"{sample_id}.png")
                member.size = path.stat().st_size
                shard.addfile(member, io.BytesIO(path.read_bytes()))
    return tmp_path


@pytest.mark.parametrize("form", SECTIONS)
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves its files open
def test_an_export_is_made_and_read_as_the_page_says(form: str, folder: Path) -> None:
    (command,) = re.findall(r"^```sh\nrelabel-store (.*?)\n```", SECTIONS[form], re.M | re.S)
    (example,) = re.findall(r"^```python\n(.*?)^```", SECTIONS[form], re.M | re.S)
    done = CliRunner().invoke(main, [*shlex.split(command), "--workers", "1"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    if "tensorflow" in example:
        pytest.importorskip("tensorflow", reason="it has an environment of its own")
    names: dict[str, object] = {}
    exec(compile(example, str(PAGE), "exec"), names)
    shapes = {name: getattr(names.get(name), "shape", None) for name in ("indices", "values")}
    assert {tuple(shape)[-3:] for shape in shapes.values() if shape is not None} == {(2, 3, 3)}


def test_every_form_has_a_section() -> None:
    from relabel_store import spec
    from relabel_store.convert import formats

    assert list(SECTIONS) == [name for name in formats.target_names() if name not in spec.ENCODING_VERSIONS]

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from click.testing import Result
from PIL import Image

from relabel_store.store.reader import open_store

Run = Callable[..., Result]


def test_the_demo_labels_real_photographs_and_draws_them(run: Run, demo: Path):
    store = open_store(demo / "labels.zarr")
    assert len(store) == 9
    assert store.manifest.teacher.dense.identity_error < 1e-4
    cat = store[store.row_of("chelsea")]
    names = {store.manifest.classes.names[index].split(",")[0] for index in cat.indices[0].flat}
    assert {"Egyptian cat", "tiger cat"} <= names
    pictures = sorted((demo / "pictures").iterdir())
    assert [picture.stem for picture in pictures] == store.samples["sample_id"].to_pylist()
    for picture in pictures:
        with Image.open(picture) as image:
            assert image.width > 1000
    said = (demo.parent / "demo.txt").read_text(encoding="utf-8")
    assert "complete, 9 images labelled" in said
    again = run("demo", demo)
    assert (again.exit_code, again.stdout) == (0, said)


def test_the_demo_writes_into_no_directory_of_somebody_elses(run: Run, tmp_path: Path):
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    for directory in (tmp_path, tmp_path / "photos"):
        result = run("demo", directory)
        assert result.exit_code == 3
        assert "which no demo made; choose a new directory" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from relabel_store.inspect.png import require_png, save_picture

Draw = Callable[..., Any]


def test_equal_pictures_have_equal_bytes(png_of: Callable[..., bytes], tmp_path: Path) -> None:
    first = png_of(tmp_path, "first.png")
    assert first == png_of(tmp_path, "second.png")
    assert first != png_of(tmp_path, "third.png", title="another")


def test_file_is_an_rgb_png_without_metadata(png_of: Callable[..., bytes], tmp_path: Path) -> None:
    png_of(tmp_path, "a.PNG")
    with Image.open(tmp_path / "a.PNG") as image:
        assert (image.format, image.mode, image.width) == ("PNG", "RGB", 1600)
        assert not image.info
        assert image.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("name", ["a.jpg", "a", ".png", "a.png.bak", "a.svg"])
def test_other_suffixes_are_refused(draw: Draw, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"only PNG is written; name it '.+\.png'"):
        require_png(tmp_path / name)
    with pytest.raises(ValueError, match="only PNG is written"):
        save_picture(draw([[0]]).figure, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_saving_replaces_a_file_and_leaves_nothing_beside(
    png_of: Callable[..., bytes], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"old")
    written = png_of(tmp_path)
    assert written.startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_name_as_long_as_the_file_system_allows_is_written(
    png_of: Callable[..., bytes], tmp_path: Path
) -> None:
    assert png_of(tmp_path, "x" * 251 + ".png")


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX")
def test_file_has_the_permissions_of_any_new_file(png_of: Callable[..., bytes], tmp_path: Path) -> None:
    png_of(tmp_path)
    (tmp_path / "other").touch()
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_interrupted_saving_keeps_the_old_file(
    png_of: Callable[..., bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(b"old")

    def fail(image: Image.Image, path: Path, **options: Any) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        png_of(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"old"


def test_missing_folder_is_named(draw: Draw, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        save_picture(draw([[0]]).figure, tmp_path / "nowhere" / "a.png")

"""The tables of pyproject.toml against the folders: what is missing there is missing in the wheel."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

import relabel_store

REPOSITORY = Path(__file__).resolve().parents[1]
TOP_LEVEL = {"cli": "relabel_store.cli", "schemas": "relabel_store.schemas"}


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


def package_folders() -> dict[str, Path]:
    """The packages that the folders hold, by import name."""
    roots = {"relabel_store": "relabel_store", **TOP_LEVEL}
    packages = {}
    for folder, name in roots.items():
        for init in (REPOSITORY / folder).rglob("__init__.py"):
            below = init.parent.relative_to(REPOSITORY / folder).parts
            packages[".".join([name, *below])] = init.parent
    return packages


def test_the_listed_packages_are_the_folders(pyproject: dict[str, Any]) -> None:
    assert sorted(pyproject["tool"]["setuptools"]["packages"]) == sorted(package_folders())


def test_every_folder_with_code_is_a_package() -> None:
    packages = set(package_folders().values())
    folders = {
        path.parent for root in ("relabel_store", *TOP_LEVEL) for path in (REPOSITORY / root).rglob("*.py")
    }
    assert folders <= packages


def test_the_top_folders_are_mapped_into_the_package(pyproject: dict[str, Any]) -> None:
    mapped = {name: folder for folder, name in TOP_LEVEL.items()}
    assert pyproject["tool"]["setuptools"]["package-dir"] == {"relabel_store": "relabel_store", **mapped}


def test_the_package_data_are_the_files_that_are_no_code(pyproject: dict[str, Any]) -> None:
    listed = pyproject["tool"]["setuptools"]["package-data"]
    matched = {
        path
        for name, folder in package_folders().items()
        for pattern in listed.get(name, [])
        for path in folder.glob(pattern)
    }
    there = {
        path
        for folder in package_folders().values()
        for path in folder.iterdir()
        if path.is_file() and path.suffix != ".py"
    }
    assert matched == there


def test_types_and_schemas_are_package_data(pyproject: dict[str, Any]) -> None:
    listed = pyproject["tool"]["setuptools"]["package-data"]
    assert (listed["relabel_store"], listed["relabel_store.schemas"]) == (["py.typed"], ["*.json"])


@pytest.mark.parametrize(
    ("package", "name"),
    [("relabel_store", "py.typed"), ("relabel_store.schemas", "manifest-v1.schema.json")],
    ids=["types", "schema"],
)
def test_package_data_is_installed(package: str, name: str) -> None:
    assert (resources.files(package) / name).is_file()


def test_the_version_is_the_one_of_the_package(pyproject: dict[str, Any]) -> None:
    assert pyproject["project"]["version"] == relabel_store.__version__

"""Imports point right, never left, and never between two names of one group."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from relabel_store.testing import make_sample_ids, make_store

PACKAGE = "relabel_store"

# A name may import from any group below its own.
LAYERS = (
    {"cli"},
    {"demo"},
    {"overlay", "repair"},
    {"generate", "inspect", "convert", "validate", "publish", "torch", "jax", "tensorflow"},
    {"images"},
    {"store"},
    {"labels", "manifest", "class_names"},
    {"schema", "spec", "canonical", "sample_ids", "version"},
    {"errors"},
)
TESTING_BELOW = {
    "testing",
    "store",
    "labels",
    "manifest",
    "schema",
    "spec",
    "canonical",
    "sample_ids",
    "version",
    "errors",
}

# Who may import what is heavy, or has one door only.
DOORS = {
    "zarr": ("relabel_store.store.zarr_v1",),
    "pyarrow": (
        "relabel_store.store",
        "relabel_store.convert",
        "relabel_store.generate",
        "relabel_store.images",
        "relabel_store.repair",
        "relabel_store.testing",
        "relabel_store.validate",
    ),
    "torch": ("relabel_store.generate", "relabel_store.torch"),
    "torchvision": ("relabel_store.generate", "relabel_store.torch"),
    "timm": ("relabel_store.generate", "relabel_store.torch"),
    "jax": ("relabel_store.jax",),
    "tensorflow": ("relabel_store.tensorflow",),
    "click": ("relabel_store.cli",),
    "google_crc32c": ("relabel_store.convert.targets.tfrecord", "relabel_store.store.zarr_v1"),
    "h5py": ("relabel_store.convert.targets.hdf5",),
    "jsonschema": ("relabel_store.schema",),
}


def find_modules() -> dict[str, Path]:
    """Every module of the package, whether it lies in one folder or, as in a checkout, in three."""
    modules = {}
    for package in (PACKAGE, f"{PACKAGE}.cli", f"{PACKAGE}.schemas"):
        spec = importlib.util.find_spec(package)
        assert spec is not None
        for folder in map(Path, spec.submodule_search_locations or []):
            for path in folder.rglob("*.py"):
                parts = [package, *path.relative_to(folder).with_suffix("").parts]
                modules[".".join(part for part in parts if part != "__init__")] = path
    return modules


MODULES = find_modules()


def imports_of(module: str) -> Iterator[str]:
    """Yield what a module imports, anywhere in it, as absolute names."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield name if name in MODULES else base


def test_modules_of_every_folder_are_found() -> None:
    assert {
        "relabel_store",
        "relabel_store.cli.main",
        "relabel_store.schemas",
        "relabel_store.store.reader",
    } <= set(MODULES)


def layer_of(name: str) -> int | None:
    return next((number for number, layer in enumerate(LAYERS) if name in layer), None)


def may_import(importer: str, imported: str) -> bool:
    """Tell whether one name below the package may import another."""
    if importer == "testing":
        return imported in TESTING_BELOW
    here, there = layer_of(importer), layer_of(imported)
    return importer == imported or (here is not None and there is not None and here < there)


def name_below_package(module: str) -> str:
    """The part of a module's name that the layers speak of, ``"store"`` for ``relabel_store.store.reader``."""
    return module.removeprefix(PACKAGE).removeprefix(".").split(".")[0]


def test_imports_point_right() -> None:
    wrong = [
        f"{module} imports {imported}"
        for module in MODULES
        if module
        != PACKAGE  # its names lead everywhere, each on first use; tests below look at what it loads
        for imported in imports_of(module)
        if imported.split(".")[0] == PACKAGE
        and not may_import(name_below_package(module), name_below_package(imported))
    ]
    assert wrong == []


def test_the_package_itself_imports_nothing_but_its_version_when_it_runs() -> None:
    tree = ast.parse(MODULES[PACKAGE].read_text(encoding="utf-8"))
    imported = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert {name for name in imported if name and name.startswith(PACKAGE)} == {f"{PACKAGE}.version"}


def test_every_module_has_a_place_in_the_layers() -> None:
    names = {module.split(".")[1] for module in MODULES if "." in module}
    assert {name for name in names if layer_of(name) is None} == {"testing", "schemas"}


@pytest.mark.parametrize("library", DOORS)
def test_a_library_is_imported_only_behind_its_door(library: str) -> None:
    others = [
        module
        for module in MODULES
        if any(name.split(".")[0] == library for name in imports_of(module))
        and not any(module == door or module.startswith(f"{door}.") for door in DOORS[library])
    ]
    assert others == []


def test_the_top_folders_are_never_imported_by_their_own_names() -> None:
    wrong = [
        f"{module} imports {name}"
        for module in MODULES
        for name in imports_of(module)
        if name.split(".")[0] in ("cli", "schemas")
    ]
    assert wrong == []


def loaded_by(code: str, *arguments: str) -> set[str]:
    """The libraries that a fresh interpreter has loaded after running some code."""
    code = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    answer = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return set(answer.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = {
        "torch",
        "torchvision",
        "timm",
        "zarr",
        "numcodecs",
        "pyarrow",
        "jsonschema",
        "matplotlib",
        "PIL",
        "click",
    }
    assert loaded_by("import relabel_store") & heavy == set()


def test_opening_a_store_loads_nothing_that_only_building_needs(tmp_path: Path, rng: object) -> None:
    make_store(tmp_path / "store", rng)  # type: ignore[arg-type]
    code = "import relabel_store; relabel_store.open_store(sys.argv[1])[0]"
    needed_elsewhere = {"torch", "torchvision", "timm", "matplotlib", "PIL", "click", "rich"}
    assert loaded_by(code, str(tmp_path / "store")) & needed_elsewhere == set()


def test_pooling_in_jax_loads_no_other_framework() -> None:
    pytest.importorskip("jax", reason="needs the extra jax")
    others = {"torch", "torchvision", "tensorflow", "grain", "zarr", "pyarrow"}
    assert loaded_by("import relabel_store.jax") & others == set()


TRAIN = """
import relabel_store
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from relabel_store.torch import LabelDataset, SampleImages

store = relabel_store.open_store(sys.argv[1])
store.read_rows([0, 5])
store = store.materialize(sys.argv[2])
crop = v2.Compose([v2.RandomResizedCrop(8), v2.ToImage()])
for batch in DataLoader(LabelDataset(SampleImages(sys.argv[3], store), store, crop), 4):
    pass
"""


def test_training_does_not_load_pandas(tmp_path: Path, rng: object) -> None:
    pytest.importorskip("pandas", reason="it cannot be loaded then")
    make_store(tmp_path / "store", rng)  # type: ignore[arg-type]
    for sample_id in make_sample_ids(8):
        path = tmp_path / "images" / f"{sample_id}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(path)
    arguments = (str(tmp_path / name) for name in ("store", "cache", "images"))
    assert "pandas" not in loaded_by(TRAIN, *arguments)


@pytest.mark.parametrize(
    "name", ["LabelMap", "LabelMaps", "LabelStore", "Manifest", "build", "open_store", "validate_store"]
)
def test_what_the_package_offers_can_be_had_from_it(name: str) -> None:
    code = f"import relabel_store; assert {name!r} in dir(relabel_store); relabel_store.{name}"
    assert "relabel_store" in loaded_by(code)


def test_what_the_package_does_not_offer_is_an_attribute_error() -> None:
    import relabel_store

    with pytest.raises(AttributeError, match="module 'relabel_store' has no attribute 'nonsense'"):
        relabel_store.nonsense  # noqa: B018

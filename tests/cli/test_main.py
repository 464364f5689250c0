from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from relabel_store.cli.main import main

import relabel_store

Run = Callable[..., Result]
COMMANDS = ("build", "cache", "demo", "inspect", "teachers", "validate")


def test_the_version_is_the_packages(run: Run):
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout == f"relabel-store, version {relabel_store.__version__}\n"


def test_help_lists_the_commands(run: Run):
    result = run("--help")
    assert result.exit_code == 0
    assert all(f"  {name}" in result.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help(run: Run, name: str):
    assert run(name, "--help").exit_code == 0
    command = main.get_command(None, name)
    assert command.help
    assert all(parameter.help for parameter in command.params if parameter.param_type_name == "option")


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["inspect"], ["build"], ["inspect", "x", "--nonsense"], ["build", "--top-k", "0"]],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(run: Run, arguments: list[str]):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr


def test_what_cannot_be_done_is_one_line_and_exits_with_3(run: Run, tmp_path: Path):
    result = run("inspect", tmp_path / "nothing")
    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr.startswith("Error: store ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--help"], ("torch", "zarr", "pyarrow", "matplotlib", "timm")),
        (["build", "--help"], ("torch", "zarr", "pyarrow", "matplotlib", "timm")),
        (["teachers"], ("torch", "zarr", "matplotlib", "timm")),
        (["inspect", "STORE"], ("torch", "timm", "matplotlib")),
        (["validate", "STORE"], ("torch", "timm", "matplotlib", "PIL")),
    ],
    ids=["help", "build help", "teachers", "inspect", "validate"],
)
def test_a_command_loads_only_what_it_needs(
    python: str, store: Path, arguments: list[str], unwanted: tuple[str, ...]
):
    arguments = [str(store) if argument == "STORE" else argument for argument in arguments]
    code = (
        "import sys; from relabel_store.cli.main import main\n"
        f"main({arguments!r}, standalone_mode=False)\n"
        f"assert not (found := set({unwanted!r}) & set(sys.modules)), found"
    )
    subprocess.run([python, "-P", "-c", code], check=True, capture_output=True)

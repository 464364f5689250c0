"""Fixtures for every test."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import hypothesis
import numpy as np
import pytest

# Before torch is loaded, here and in processes that tests start. On models of a few thousand parameters, threads wait
# for each other rather than help: half of the suite's time on two cores, and more where others use them too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from relabel_store.cli.main import main

# How long an example takes depends on who else uses the machine.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

# What takes seconds to load, loaded once in a process of its own, from which others are forked in milliseconds.
multiprocessing.set_forkserver_preload(["relabel_store.generate.build", "relabel_store.torch", "timm"])
RUN_PROGRAM = Path(__file__).parent / "run_program.py"

LAST = ("test_jax.py",)  # JAX starts threads, and warns of every fork of the process from then on


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests last that would disturb others in their process."""
    items.sort(key=lambda item: item.path.name in LAST)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that environments of one framework are tested with."""
    parser.addoption("--no-skips", action="store_true", help="Fail where a test was skipped.")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run that may not skip and did."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--no-skips") and not exitstatus and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run."""
    return np.random.default_rng(20210112)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the demo: real photographs, labelled by a real teacher. Beside it, what the command said."""
    directory = tmp_path_factory.mktemp("session") / "demo"
    with (directory.parent / "demo.txt").open("w", encoding="utf-8") as said, redirect_stdout(said):
        main(["demo", str(directory)], standalone_mode=False)
    return directory


class Program:
    """A Python program in a process of its own, as `subprocess.Popen` would have it, without the time to load torch.

    Parameters
    ----------
    arguments
        As after ``python``: a script, ``-m module`` or ``-c code``, and what they are given.
    folder
        For what it prints.
    """

    def __init__(self, arguments: tuple[str, ...], environment: Mapping[str, str], folder: Path) -> None:
        self._printed = (folder / "stdout", folder / "stderr")
        request = {
            "arguments": arguments,
            "environment": dict(environment),
            "printed": [str(path) for path in self._printed],
        }
        self._process: ForkServerProcess = multiprocessing.get_context("forkserver").Process(
            target=runpy.run_path, args=(str(RUN_PROGRAM), {"request": request}, "__main__")
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    @property
    def stdout(self) -> str:
        """What it has printed until now."""
        return self._printed[0].read_text(encoding="utf-8") if self._printed[0].exists() else ""

    def wait_for_output(self) -> str:
        """Return what it has printed once it has printed something, or has ended."""
        while not self.stdout and self.returncode is None:
            time.sleep(0.01)
        return self.stdout

    def end(self, timeout_s: float = 300.0) -> tuple[str, str]:
        """Return what it printed, on stdout and on stderr, once it has ended."""
        self._process.join(timeout_s)
        assert self.returncode is not None, f"it still runs after {timeout_s} s"
        return self.stdout, self._printed[1].read_text(encoding="utf-8")

    def kill(self) -> None:
        """Kill it, and whatever else it would have done."""
        self._process.kill()
        self._process.join()


@pytest.fixture
def program(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Program]:
    """Start ``python`` with some arguments and, if any, another environment than this process has."""

    def start(*arguments: object, environment: Mapping[str, str] | None = None) -> Program:
        folder = tmp_path_factory.mktemp("program")
        return Program(tuple(map(str, arguments)), os.environ if environment is None else environment, folder)

    return start


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3 server of this machine, with a bucket called ``bucket``."""
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    import boto3

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    client.create_bucket(Bucket="bucket")
    client.close()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_folder(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The URL of a free prefix, with the environment that leads there and nowhere else."""
    settings = {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "FSSPEC_CONFIG_DIR": str(tmp_path),
    }
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return f"s3://bucket/{uuid.uuid4().hex}"

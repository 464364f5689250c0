from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relabel_store.errors import StoreBusyError
from relabel_store.store.locks import hold_lock

HOLD = """
import sys
from pathlib import Path
from relabel_store.store.locks import hold_lock
with hold_lock(Path(sys.argv[1]), shared=sys.argv[2] == "shared"):
    print("held", flush=True)
    sys.stdin.readline()
"""

# The parent of the fork dies holding the lock; its child lives on until the test closes stdin.
HOLD_AND_FORK = """
import os, signal, sys
from pathlib import Path
from relabel_store.store.locks import hold_lock
with hold_lock(Path(sys.argv[1]), shared=sys.argv[2] == "shared"):
    if os.fork() == 0:
        print("held", flush=True)
        sys.stdin.readline()
        os._exit(0)
    signal.pause()
"""

Holder = Callable[..., contextlib.AbstractContextManager["subprocess.Popen[str]"]]


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "running" / "part-00000.lock"


@pytest.fixture
def held_elsewhere(lock: Path) -> Holder:
    """Hold the lock in another process while a block runs."""

    @contextlib.contextmanager
    def hold(mode: str = "exclusive", script: str = HOLD) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-P", "-c", script, str(lock), mode]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            try:
                yield process
            finally:
                process.kill()

    return hold


def test_a_lock_held_by_another_process_is_refused(lock: Path, held_elsewhere: Holder) -> None:
    with (
        held_elsewhere(),
        pytest.raises(StoreBusyError, match=r"'part-00000\.lock': held by another process"),
    ):
        hold_lock(lock).__enter__()


def test_a_refusal_says_what_the_caller_wants_said(lock: Path, held_elsewhere: Holder) -> None:
    with held_elsewhere(), pytest.raises(StoreBusyError, match="share 0/2 is being built"):
        hold_lock(lock, busy="share 0/2 is being built").__enter__()


def test_shared_locks_coexist(lock: Path, held_elsewhere: Holder) -> None:
    with held_elsewhere("shared"), hold_lock(lock, shared=True):
        pass


def test_a_shared_lock_keeps_an_exclusive_one_out(lock: Path, held_elsewhere: Holder) -> None:
    with held_elsewhere("shared"), pytest.raises(StoreBusyError):
        hold_lock(lock).__enter__()


def test_an_exclusive_lock_keeps_a_shared_one_out(lock: Path, held_elsewhere: Holder) -> None:
    with held_elsewhere(), pytest.raises(StoreBusyError):
        hold_lock(lock, shared=True).__enter__()


def test_a_lock_is_free_again_after_its_block(lock: Path) -> None:
    with hold_lock(lock):
        pass
    with hold_lock(lock):
        pass


def test_a_lock_is_free_again_after_its_block_raised(lock: Path) -> None:
    with pytest.raises(KeyError), hold_lock(lock):
        raise KeyError
    with hold_lock(lock):
        pass


def test_a_lock_dies_with_its_process(lock: Path, held_elsewhere: Holder) -> None:
    with held_elsewhere() as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with hold_lock(lock):
            pass


def test_a_forked_child_does_not_keep_the_lock_of_its_dead_parent(lock: Path, held_elsewhere: Holder) -> None:
    with held_elsewhere(script=HOLD_AND_FORK) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with hold_lock(lock):
            pass


def test_a_forked_child_does_not_end_the_lock_of_its_living_parent(
    lock: Path, held_elsewhere: Holder
) -> None:
    with held_elsewhere(script=HOLD_AND_FORK), pytest.raises(StoreBusyError):
        hold_lock(lock).__enter__()


def hold_in_thread(lock: Path) -> tuple[threading.Thread, threading.Event]:
    got_it = threading.Event()

    def work() -> None:
        with hold_lock(lock, wait=True):
            got_it.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread, got_it


def test_who_waits_gets_the_lock_when_it_is_free(lock: Path) -> None:
    with hold_lock(lock):
        thread, got_it = hold_in_thread(lock)
        assert not got_it.wait(0.1)
    thread.join(10)
    assert got_it.is_set()


def test_who_waits_gets_a_lock_even_if_its_file_was_removed(lock: Path) -> None:
    with hold_lock(lock):
        thread, got_it = hold_in_thread(lock)
        assert not got_it.wait(0.1)
        lock.unlink()
        lock.parent.rmdir()
    thread.join(10)
    assert got_it.is_set()


def test_a_lock_got_after_its_file_was_removed_keeps_others_out(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = os.open

    def open_and_lose(path: Any, *args: Any, **options: Any) -> int:
        descriptor = real_open(path, *args, **options)
        monkeypatch.setattr(os, "open", real_open)
        lock.unlink()  # whoever finished the store removes its locks now
        return descriptor

    monkeypatch.setattr(os, "open", open_and_lose)
    with hold_lock(lock), pytest.raises(StoreBusyError):
        hold_lock(lock).__enter__()


def test_a_lock_folder_removed_before_the_lock_is_made_is_made_again(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = os.open

    def lose_and_open(path: Any, *args: Any, **options: Any) -> int:
        monkeypatch.setattr(os, "open", real_open)
        lock.parent.rmdir()  # whoever finished the store removes its locks now
        return real_open(path, *args, **options)

    monkeypatch.setattr(os, "open", lose_and_open)
    with hold_lock(lock):
        assert lock.exists()


def test_a_lock_file_holds_nothing(lock: Path) -> None:
    with hold_lock(lock):
        assert lock.read_bytes() == b""

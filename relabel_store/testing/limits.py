"""Does work in a process that may take little memory and time, for tests of what strangers' files make of a reader."""

from __future__ import annotations

import os
import resource
import signal
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from relabel_store.errors import RelabelStoreError

MEMORY_BYTES = 512 * 2**20
TIME_S = 20


def within_limits(work: Callable[[], object]) -> str:
    """Do some work in a process that may take little memory and time; return what came of it as text."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of a fork beside threads, which do nothing here
        child = os.fork()
    if child == 0:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        signal.alarm(TIME_S)
        try:
            answer = f"returned {work()!r}"
        except RelabelStoreError as error:
            answer = f"{type(error).__name__}: {error}"
        except BaseException:
            answer = f"leaked {traceback.format_exc()}"
        os.write(writer, answer.encode()[:60_000])
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as answers:
        answer = answers.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"killed by signal {os.WTERMSIG(status)}"
    return answer

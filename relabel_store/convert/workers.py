"""Parts done by several processes, a few ahead of whoever waits for them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from relabel_store.errors import EngineError
from relabel_store.store.disk import explaining

T = TypeVar("T")

_do_part: Callable[[int], Any] | None = None  # of a worker process, for all its parts


def each_part(do_part: Callable[[int], T], parts: Sequence[int], workers: int) -> Iterator[T]:
    """Yield what a function returns for each part, in the order in which they are done.

    Parameters
    ----------
    do_part
        Can be pickled, with all that it holds; sent to each worker once.
    workers
        Processes; 1 does it in this one.

    Raises
    ------
    EngineError
        A worker was killed, or could not import the script that it was started from.
    """
    workers = min(workers, len(parts))
    if workers <= 1:
        yield from map(do_part, parts)
        return
    # Spawned: the threads of Arrow and of compressors do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with (
        _pickled(do_part) as path,
        ProcessPoolExecutor(workers, context, _begin_worker, (path,)) as pool,
    ):
        waiting, running = iter(parts), set[Future[T]]()
        try:
            running |= {pool.submit(_do, part) for part in islice(waiting, 2 * workers)}
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(_do, part) for part in islice(waiting, len(done))}
                yield from (future.result() for future in done)
        except BrokenProcessPool as error:
            raise EngineError(
                "a worker process ended before its time; run the same command again to go on: with fewer workers if "
                "memory ran out, and in a script of yours below \"if __name__ == '__main__':\", because each worker "
                "imports the script first"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _pickled(do_part: Callable[[int], Any]) -> Iterator[Path]:
    """Yield a file for the workers to fetch a function from, which may hold a million names.

    Sent to them as an argument, it goes through a pipe that holds 64 KiB, and whoever writes waits forever if a worker
    ends before it has read (https://github.com/python/cpython/issues/118981).
    """
    with tempfile.TemporaryDirectory(prefix="relabel-store-") as folder:
        path = Path(folder, "do_part.pickle")
        with explaining(f"folder {folder!r}"), path.open("wb") as file:
            pickle.dump(do_part, file)
        yield path


def _begin_worker(path: Path) -> None:
    global _do_part
    with path.open("rb") as file:
        _do_part = pickle.load(
            file
        )  # of the process that started this one, in a folder that its user alone may enter


def _do(part: int) -> Any:
    assert _do_part is not None
    return _do_part(part)


def usable_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

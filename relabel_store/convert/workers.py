"""Parts done by several processes, a few ahead of whoever waits for them."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

from relabel_store.errors import EngineError

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
        A worker was killed.
    """
    workers = min(workers, len(parts))
    if workers <= 1:
        yield from map(do_part, parts)
        return
    # Spawned: the threads of Arrow and of compressors do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin_worker, (do_part,)) as pool:
        waiting, running = iter(parts), set[Future[T]]()
        try:
            running |= {pool.submit(_do, part) for part in islice(waiting, 2 * workers)}
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(_do, part) for part in islice(waiting, len(done))}
                yield from (future.result() for future in done)
        except BrokenProcessPool as error:
            raise EngineError(
                "a worker process was killed, perhaps for want of memory; run the same command again to go on, with "
                "fewer --workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _begin_worker(do_part: Callable[[int], Any]) -> None:
    global _do_part
    _do_part = do_part


def _do(part: int) -> Any:
    assert _do_part is not None
    return _do_part(part)


def usable_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

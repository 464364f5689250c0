"""Several devices of one machine: a process for each, each with a share of the parts."""

from __future__ import annotations

import logging
import logging.handlers
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from torch.multiprocessing.spawn import ProcessExitedException, start_processes

from relabel_store.errors import EngineError, RelabelStoreError
from relabel_store.generate.observer import BatchReport, BuildObserver
from relabel_store.manifest import TeacherInfo

T = TypeVar("T")
ShareBuilder = Callable[[BuildObserver], T]
"""Builds a share and tells how it goes on. It is pickled: a process that is started anew calls it."""

_PACKAGE = "relabel_store"  # whose log the processes hand on
_START_METHOD = "spawn"  # CUDA cannot be used in a process that was forked after it was in another


def build_shares(shares: Sequence[ShareBuilder[T]], names: Sequence[str], observer: BuildObserver) -> list[T]:
    """Call each function in a process of its own, and return what they return.

    What they tell is told to `observer` as if one process did it all. The first that fails ends the others.

    Parameters
    ----------
    names
        Of the devices, for messages.

    Raises
    ------
    RelabelStoreError, OSError
        One of them raised it.
    EngineError
        One of them was ended from outside, or by a fault that it could not report.
    """
    pipes = [Pipe(duplex=False) for _ in shares]
    senders = [sender for _, sender in pipes]
    processes: Any = start_processes(  # type: ignore[no-untyped-call]
        _build_share,
        args=(list(shares), senders, logging.getLogger(_PACKAGE).getEffectiveLevel()),
        nprocs=len(shares),
        join=False,
        start_method=_START_METHOD,
    )
    for sender in senders:
        sender.close()  # theirs are open: once they are gone, nothing more can come
    listener = _Listener[T](observer, len(shares))
    try:
        for index, message in _messages([receiver for receiver, _ in pipes], processes):
            listener.hear(index, message)
    except ProcessExitedException as error:
        raise EngineError(
            f"device {names[error.error_index]}: its process was ended by {error.signal_name or error.exit_code}, "
            "perhaps because the memory ran out; finished parts stay, run the same command again"
        ) from None
    finally:
        for process in processes.processes:
            process.terminate()  # does nothing to those that have ended
            process.join()
    for name, result in zip(names, listener.results, strict=True):
        if result is None:
            raise EngineError(f"device {name}: its process was interrupted; run the same command again")
    return [result for result in listener.results if result is not None]


def _messages(receivers: Sequence[Connection], processes: Any) -> Iterator[tuple[int, Any]]:
    """Yield what the processes send, and by whom it is, until all have ended."""
    speaking = {receiver: index for index, receiver in enumerate(receivers)}
    while speaking or processes.sentinels:
        for ready in wait([*speaking, *processes.sentinels]):
            if not isinstance(ready, Connection):
                processes.join(timeout=0)  # raises for one that failed
                continue
            try:
                message = ready.recv()
            except (EOFError, OSError):
                del speaking[ready]
            else:
                yield speaking[ready], message


class _Listener(Generic[T]):
    """Puts together what several processes tell of their shares."""

    def __init__(self, observer: BuildObserver, count: int) -> None:
        self.results: list[T | None] = [None] * count
        self._observer = observer
        self._starts: list[dict[str, int]] = []
        self._early: list[BatchReport] = []
        self._has_teacher = False

    def hear(self, index: int, message: tuple[str, Any]) -> None:
        what, content = message
        if what == "error":
            raise content
        if what == "result":
            self.results[index] = content
        elif what == "log":
            logging.getLogger(content.name).handle(content)
        elif what == "teacher" and not self._has_teacher:
            self._has_teacher = True
            self._observer.on_teacher(content)
        elif what == "start":
            self._starts.append(content)
            if len(self._starts) == len(self.results):
                total = {key: sum(start[key] for start in self._starts) for key in content}
                self._observer.on_start(**total)
                for report in self._early:
                    self._observer.on_batch(report)
        elif what == "batch":
            if len(self._starts) < len(self.results):
                self._early.append(content)  # how much there is to do is not known yet
            else:
                self._observer.on_batch(content)


def _build_share(
    index: int, shares: Sequence[ShareBuilder[Any]], senders: Sequence[Connection], log_level: int
) -> None:
    for number, sender in enumerate(senders):
        if number != index:
            sender.close()
    say = _Voice(senders[index])
    package_log = logging.getLogger(_PACKAGE)
    package_log.setLevel(log_level)
    package_log.propagate = False
    package_log.addHandler(_LogTeller(say))
    try:
        result = shares[index](_Teller(say))
    # A full disk is no fault of the code, which would be reported with a traceback.
    except (RelabelStoreError, OSError) as error:
        say("error", error)
    else:
        say("result", result)


class _Voice:
    """Sends messages, of whatever thread, one after the other."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def __call__(self, what: str, content: Any) -> None:
        with self._lock:
            self._connection.send((what, content))


class _Teller(BuildObserver):
    def __init__(self, say: _Voice) -> None:
        self._say = say

    def on_teacher(self, teacher: TeacherInfo) -> None:
        self._say("teacher", teacher)

    def on_start(self, *, samples: int, finished_samples: int, parts: int) -> None:
        self._say("start", {"samples": samples, "finished_samples": finished_samples, "parts": parts})

    def on_batch(self, report: BatchReport) -> None:
        self._say("batch", report)


class _LogTeller(logging.handlers.QueueHandler):
    """Hands log records on as they are put in a queue: without what cannot be pickled."""

    def __init__(self, say: _Voice) -> None:
        super().__init__(say)  # type: ignore[arg-type]  # the queue is `enqueue`'s alone to use

    def enqueue(self, record: logging.LogRecord) -> None:
        self.queue("log", record)  # type: ignore[operator]

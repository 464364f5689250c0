"""Locks between the processes of one host, held by the operating system, gone with their process."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from relabel_store.errors import StoreBusyError
from relabel_store.store.disk import explaining

_held: set[int] = set()


def _forget_after_fork() -> None:
    # A decoder process forked by a build shares the open file and with it the lock: a build that was
    # killed would look alive until the last of its decoders has noticed.
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget_after_fork)


@contextlib.contextmanager
def hold_lock(path: Path, *, shared: bool = False, wait: bool = False, busy: str = "") -> Iterator[None]:
    """Hold a lock file while the block runs.

    Parameters
    ----------
    shared
        Let others hold it too, if they also ask for it shared.
    wait
        Wait for the lock rather than refuse.
    busy
        What to say when the lock is taken.

    Raises
    ------
    StoreBusyError
        Another process holds the lock.
    """
    descriptor = _acquire(path, shared=shared, wait=wait, busy=busy)
    _held.add(descriptor)
    try:
        yield
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def _acquire(path: Path, *, shared: bool, wait: bool, busy: str) -> int:
    import fcntl  # POSIX only; stores can be read without

    mode = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    while True:
        try:
            with explaining(f"lock {str(path)!r}"):
                path.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue  # whoever finished the store removed the folder meanwhile
        try:
            fcntl.flock(descriptor, mode)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise StoreBusyError(busy or f"lock {path.name!r}: held by another process") from None
            raise
        if _is_still_there(path, descriptor):
            return descriptor
        os.close(descriptor)  # whoever finished the store removed it meanwhile


def _is_still_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False

"""What a disk answers when nothing can be written, in our words."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from relabel_store.errors import NotEnoughSpaceError, NotWritableError, RelabelStoreError

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def explaining(what: str) -> Iterator[None]:
    """Turn what the disk answers in the block into errors of ours.

    Parameters
    ----------
    what
        What is done there, as a message begins.

    Raises
    ------
    NotEnoughSpaceError
        There is no room.
    NotWritableError
        Nothing may be written there.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, RelabelStoreError):
            raise
        if error.errno in _NO_SPACE:
            raise NotEnoughSpaceError(
                f"{what}: {error.strerror}; free some space and run the same command again"
            ) from error
        if error.errno in _NOT_WRITABLE:
            raise NotWritableError(
                f"{what}: {error.strerror}, expected a place to write to; change its permissions, or choose another"
            ) from error
        raise

"""Calls a function before each step of this process in the file system: to fail, to die, or to let others in."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# What changes a file system, or makes a change durable.
_CALLS = ("fsync", "link", "mkdir", "pwrite", "rename", "replace", "rmdir", "unlink")
REMOVALS = ("rmdir", "unlink")


@contextmanager
def watched_steps(before: Callable[[str], object]) -> Iterator[None]:
    """Call a function with the name of each step of the block before it is taken.

    Files are written in two steps, so that one can be left half written.
    """
    real = {name: getattr(os, name) for name in (*_CALLS, "open")}
    real_open = io.open

    class HalfAtATime(io.FileIO):
        is_begun = False

        def write(self, data: Any) -> int:
            before("write")
            view = memoryview(data).cast("B")
            length = len(view) if self.is_begun else -(-len(view) // 2)
            self.is_begun = True
            return super().write(view[:length])

    def open_file(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if not set(mode) & set("wxa+"):
            return real_open(file, mode, *args, **options)
        before("create")
        if "b" not in mode:
            return real_open(file, mode, *args, **options)
        return io.BufferedWriter(HalfAtATime(file, mode.replace("b", "")))

    def watch(name: str) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            before(name)
            return real[name](*args, **options)

        return step

    def open_descriptor(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if flags & os.O_CREAT:
            before("create")
        return int(real["open"](path, flags, *args, **options))

    try:
        io.open = open_file
        os.open = open_descriptor
        for name in _CALLS:
            setattr(os, name, watch(name))
        yield
    finally:
        io.open = real_open
        for name, call in real.items():
            setattr(os, name, call)

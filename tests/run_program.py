"""Run a Python program in a process that was forked with everything loaded: see `Program` in conftest.py.

It is run by `runpy.run_path`, which sets `request`.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any


def main(arguments: tuple[str, ...], environment: dict[str, str], printed: list[str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path in enumerate(printed, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    what, *rest = arguments
    if what == "-c":
        sys.argv = [what, *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif what == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [what, *rest]
        sys.path.insert(0, str(Path(what).parent))
        runpy.run_path(what, run_name="__main__")


found: dict[str, Any] = globals()["request"]
main(**found)

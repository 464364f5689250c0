"""Static shares: which parts one worker of several builds, and the locks that keep it alone."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from relabel_store import spec
from relabel_store.errors import OptionError, StoreBusyError
from relabel_store.store.locks import hold_lock
from relabel_store.store.occupied import is_store


@dataclass(frozen=True)
class Share:
    """The i-th of n shares of a build, 0-based; the whole build is the only share of one."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise OptionError(f"share: {self.index}/{self.count}, expected 0/N to N-1/N")

    @classmethod
    def parse(cls, text: str) -> Share:
        """Return the share named ``I/N``, or with ``auto`` what `from_environment` finds.

        Raises
        ------
        OptionError
            It is not a share, or the environment names none.
        """
        if text == "auto":
            found = cls.from_environment(os.environ)
            if found is None:
                raise OptionError(
                    "share: 'auto', but neither RANK and WORLD_SIZE (of torchrun) nor SLURM_ARRAY_TASK_ID (of sbatch "
                    "--array) are set; give I/N such as 0/8"
                )
            return found
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None:
            raise OptionError(f"share: {text!r}, expected I/N such as 0/8, or auto")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Share | None:
        """Return the share that torchrun or a Slurm array gives to this process; None where neither does.

        The tasks of an array that each start torchrun divide the parts among all their processes.

        Raises
        ------
        OptionError
            Their variables contradict each other.
        """
        found = [cls._of_slurm_array(environment), cls._of_torchrun(environment)]
        shares = [share for share in found if share is not None]
        return functools.reduce(lambda outer, inner: inner.within(outer), shares) if shares else None

    @classmethod
    def _of_torchrun(cls, environment: Mapping[str, str]) -> Share | None:
        if not {"RANK", "WORLD_SIZE"} <= environment.keys():
            return None
        return cls(_number(environment, "RANK"), _number(environment, "WORLD_SIZE"))

    @classmethod
    def _of_slurm_array(cls, environment: Mapping[str, str]) -> Share | None:
        if "SLURM_ARRAY_TASK_ID" not in environment:
            return None
        first = _number(environment, "SLURM_ARRAY_TASK_MIN") if "SLURM_ARRAY_TASK_MIN" in environment else 0
        step = _number(environment, "SLURM_ARRAY_TASK_STEP") if "SLURM_ARRAY_TASK_STEP" in environment else 1
        index, uneven = divmod(_number(environment, "SLURM_ARRAY_TASK_ID") - first, max(step, 1))
        last = _number(environment, "SLURM_ARRAY_TASK_MAX")
        count = (last - first) // max(step, 1) + 1
        if uneven or not 0 <= index < count or _number(environment, "SLURM_ARRAY_TASK_COUNT") != count:
            # Of --array=1,4,9 no task knows which the others are.
            raise OptionError(
                f"share: Slurm array of {environment.get('SLURM_ARRAY_TASK_COUNT')} tasks from {first} to {last}, "
                "expected one without gaps such as --array=0-63; or give I/N yourself"
            )
        return cls(index, count)

    def within(self, outer: Share) -> Share:
        """Return this share of another share."""
        return Share(outer.index + outer.count * self.index, outer.count * self.count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, parts: Sequence[int]) -> list[int]:
        """Return those parts that are this share's: every n-th, so that all shares end together."""
        return [part for part in parts if part % self.count == self.index]


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not text.isdecimal():
        raise OptionError(f"share: {name} is {text!r}, expected a whole number")
    return int(text)


@contextlib.contextmanager
def hold_share(store: Path | None, share: Share) -> Iterator[None]:
    """Keep other processes of this host from building the same share, or the whole beside it.

    Parameters
    ----------
    store
        Its directory. None is an object store, whose builds are on many hosts: there duplicated work is harmless.

    Raises
    ------
    StoreBusyError
        One of them is at it.
    """
    if store is None:
        yield
        return
    running = store / spec.RUNNING_DIR
    is_whole = share.count == 1
    created = not store.exists()
    busy = (
        f"store {str(store)!r}: another build of it is running on this host; wait for it, "
        "or give each process its own --share I/N"
    )
    try:
        with (
            hold_lock(running / "build.lock", shared=not is_whole, busy=busy),
            hold_lock(running / f"share-{share.index}-of-{share.count}.lock", busy=busy),
        ):
            yield
    finally:
        _remove_what_nobody_needs(store, created)


def _remove_what_nobody_needs(store: Path, created: bool) -> None:
    if (store / spec.COMPLETE_FILE).exists():
        shutil.rmtree(store / spec.RUNNING_DIR, ignore_errors=True)
    elif created and not is_store(store):
        # Nothing was begun: leave no empty directory behind for a teacher that could not be loaded.
        # Unless another share has come in meanwhile, which may well begin the store.
        with contextlib.suppress(OSError, StoreBusyError), hold_lock(store / spec.RUNNING_DIR / "build.lock"):
            shutil.rmtree(store / spec.RUNNING_DIR, ignore_errors=True)
            (store / spec.JOURNAL_DIR).rmdir()
            store.rmdir()

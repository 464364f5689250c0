"""Random draws that follow from seed, epoch and row, whichever process makes them."""

from __future__ import annotations

import hashlib
import operator
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

from relabel_store.errors import OptionError

_NOT_SET = -1


class SeededDraws:
    """Generators for each row of an epoch.

    Transforms draw from the generators that Python, NumPy and PyTorch keep for a process, which a ``DataLoader``
    seeds by worker: what a sample gets then depends on how many workers there are.

    Parameters
    ----------
    seed
        Of a whole training.
    """

    def __init__(self, seed: int) -> None:
        self.seed = operator.index(seed)
        self._epoch = torch.full((), _NOT_SET)
        self._share()

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__ = state
        self._share()  # a copy has memory of its own

    @property
    def epoch(self) -> int | None:
        """The epoch that is drawn for, None until it is set; workers that run already see it change."""
        epoch = int(self._epoch)
        return None if epoch == _NOT_SET else epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        number = operator.index(epoch)
        if number < 0:
            raise OptionError(f"epoch: {number}, expected a number from 0 on")
        self._epoch.fill_(number)

    def _share(self) -> None:
        """Put the epoch where workers see it change, forked or spawned."""
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    @contextmanager
    def of_row(self, row: int) -> Iterator[None]:
        """Draw for a row while the block runs.

        Raises
        ------
        OptionError
            The epoch was never set.
        """
        if self.epoch is None:
            raise OptionError(
                f"epoch: not set, expected its number where seed={self.seed} is given; set dataset.epoch before each "
                "pass over the data, or all of them would show the same crops"
            )
        digest = hashlib.blake2b(f"{self.seed} {self.epoch} {row}".encode(), digest_size=20).digest()
        # A loader's worker draws for nothing else, so what its generators did before is not kept: 15 us, not 150.
        before = _states() if get_worker_info() is None else None
        try:
            random.seed(digest[:8])
            np.random.seed(int.from_bytes(digest[8:12], "little"))
            torch.default_generator.manual_seed(
                int.from_bytes(digest[12:], "little")
            )  # of no GPU: that takes 100 us
            yield
        finally:
            if before is not None:
                random.setstate(before[0])
                np.random.set_state(before[1])
                torch.set_rng_state(before[2])


def _states() -> tuple[Any, Any, torch.Tensor]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()

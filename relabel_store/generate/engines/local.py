"""The local engine: one device, in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from relabel_store.generate.part import PartLabeller
from relabel_store.generate.profile import Stage
from relabel_store.store.journal import PartRecord

MAX_UNWRITTEN_PARTS = 2  # each about 40 MB of unrounded scores at 4,096 rows of 15x15x5


def label_locally(labeller: PartLabeller, parts: Sequence[int], *, workers: int) -> Iterator[PartRecord]:
    """Yield the records of parts as they are committed.

    The teacher goes on with the next part while a thread encodes, compresses and writes the last one.
    If anything fails, the parts that were labelled in full are still written.

    Parameters
    ----------
    workers
        Processes that decode images.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="write-part") as writer:
        unwritten: deque[Future[PartRecord]] = deque()
        for labels in labeller.label_parts(parts, workers=workers):
            unwritten.append(writer.submit(labeller.write, labels))
            while unwritten and (unwritten[0].done() or len(unwritten) > MAX_UNWRITTEN_PARTS):
                with labeller.profile.timed(Stage.WAIT_WRITE):
                    record = unwritten.popleft().result()
                yield record
        while unwritten:
            with labeller.profile.timed(Stage.WAIT_WRITE):
                record = unwritten.popleft().result()
            yield record

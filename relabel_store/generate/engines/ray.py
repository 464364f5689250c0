"""The Ray engine: one task a part, on whatever nodes a cluster has just now."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relabel_store.errors import AbsentRuleError, BadImageStop, EngineError, MissingDependencyError
from relabel_store.generate.arithmetic import fixed_arithmetic
from relabel_store.generate.observer import BatchReport
from relabel_store.store.running import FailedPart

if TYPE_CHECKING:
    from relabel_store.generate.engines.job import LabelJob
    from relabel_store.generate.part import PartLabeller
    from relabel_store.store.journal import PartRecord

log = logging.getLogger("relabel_store.build")

_MAX_RAISES = 5  # of a part, before it is set aside
_MAX_DEATHS = 20  # of workers at a part: machines are taken away, which is not the part's fault
_MAX_QUEUED = 1000  # tasks at once: enough for any cluster to see what there is to do
_LOOPBACK = (
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # "0" keeps Ray on the loopback; the address of a node does not
)
_ANSWER_S = 10.0  # in which a cluster has to answer
_TICK_S = 1.0  # in which an interrupt is heard

# Of the labels as a whole: what stops one part would stop all of them.
_FATAL = (AbsentRuleError, BadImageStop)


@dataclass(frozen=True)
class RaySettings:
    """Where the work goes.

    Parameters
    ----------
    address
        Of a cluster; None makes one of this machine, which only this machine can reach.
    workers
        Parts at once; None is as many as there is room for.
    device
        ``cuda``: a worker has a GPU of its own; ``cpu``: none; ``auto``: one if the cluster has any now.
    cpus_each
        What a worker takes of its node.
    """

    address: str | None = None
    workers: int | None = None
    device: str = "auto"
    cpus_each: int = 1


@dataclass(frozen=True)
class _Done:
    record: PartRecord
    report: BatchReport


@contextlib.contextmanager
def ray_cluster(settings: RaySettings) -> Iterator[RayEngine]:
    """Connect to a cluster, or make one, while the block runs.

    Raises
    ------
    MissingDependencyError
        Ray is not installed.
    EngineError
        Nothing answers at the address.
    """
    # Read when Ray is imported: a cluster of one machine listens on its loopback alone, and tells nobody.
    if settings.address is None:
        if "ray" in sys.modules and os.environ.get(_LOOPBACK) != "0":
            log.warning(
                "Ray was imported before: its cluster listens on all interfaces; set %s=0 before the import",
                _LOOPBACK,
            )
        os.environ[_LOOPBACK] = "0"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError(
            f"engine 'ray': {error}; pip install 'relabel-store[build,ray]'"
        ) from error
    was_connected = ray.is_initialized()
    if not was_connected:
        try:
            _connect(ray, settings)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise EngineError(
                f"engine 'ray': no cluster at {settings.address!r} ({str(error).splitlines()[0]}); "
                "start it, or leave --ray-address out for this machine alone"
            ) from error
    try:
        yield RayEngine(ray, settings)
    finally:
        if not was_connected:
            ray.shutdown()


def _connect(ray: Any, settings: RaySettings) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False}
    if settings.address is not None:
        _require_answer(settings.address)  # which Ray itself would wait for, for ever
        ray.init(address=settings.address, log_to_driver=False, logging_level=logging.ERROR)
        return
    cpus = None if settings.workers is None else settings.workers * settings.cpus_each
    # "local" whatever an earlier cluster left behind says of itself.
    ray.init(address="local", num_cpus=cpus, **quiet)


def _require_answer(address: str) -> None:
    """Check that something listens at ``host:port`` or ``ray://host:port``; ``auto`` is Ray's to find."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    if not port.isdecimal():
        raise ValueError(f"port {port!r}, expected a number")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
    except OSError as error:
        raise ConnectionError(error.strerror or str(error)) from error


class RayEngine:
    """Runs functions on a cluster: once, or for every part until each is done or given up."""

    def __init__(self, ray: Any, settings: RaySettings) -> None:
        self._ray = ray
        self._settings = settings
        has_gpus = settings.device == "auto" and ray.cluster_resources().get("GPU", 0) > 0
        self._gpus_each = 1 if has_gpus or settings.device == "cuda" else 0
        self.failed: dict[int, FailedPart] = {}
        """The parts that were given up."""

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a function gives on a node that has what a worker needs."""
        try:
            return self._wait(self._remote(function).remote(*arguments))
        except self._ray.exceptions.RayTaskError as error:
            raise _cause(error) from None
        except self._ray.exceptions.RayError as error:
            raise EngineError(
                f"engine 'ray': a worker was lost at the start ({error}); run it again"
            ) from error

    def label(self, job: LabelJob, parts: Sequence[int]) -> Iterator[tuple[PartRecord, BatchReport]]:
        """Yield records and reports of parts as they are committed."""
        # In a list, for Ray would give each task its own copy. A node holds one, whose Arrow memory its workers share.
        held = [self._ray.put(job)]
        for done in self.run(_label_in_worker, parts, held, uuid.uuid4().hex):
            yield done.record, done.report

    def run(self, function: Callable[..., Any], parts: Sequence[int], *arguments: Any) -> Iterator[Any]:
        """Yield what a function gives for each part, in the order in which they are done.

        A part whose function raises is tried five times, one whose worker dies twenty times. Then it is in `failed`,
        and the others go on.

        Parameters
        ----------
        function
            Of a part and `arguments`, which are sent to each node once.
        """
        ray = self._ray
        remote = self._remote(function)
        sent = [ray.put(argument) for argument in arguments]
        waiting, running = deque(parts), dict[Any, int]()
        raises, deaths = Counter[int](), Counter[int]()
        most = self._settings.workers or _MAX_QUEUED
        try:
            while waiting or running:
                while waiting and len(running) < most:
                    part = waiting.popleft()
                    running[remote.remote(part, *sent)] = part
                ready, _ = ray.wait(list(running), num_returns=1, timeout=_TICK_S)
                for task in ready:
                    part = running.pop(task)
                    try:
                        result = ray.get(task)
                    except ray.exceptions.RayTaskError as error:
                        cause = _cause(error)
                        if isinstance(cause, _FATAL):
                            raise cause from None
                        raises[part] += 1
                        reason = str(error)
                        in_brief = reason.strip().splitlines()[-1]  # of a traceback
                    except ray.exceptions.RayError as error:
                        deaths[part] += 1
                        reason = f"{type(error).__name__}: {error}"
                        in_brief = reason.splitlines()[0]
                    else:
                        yield result
                        continue
                    if raises[part] < _MAX_RAISES and deaths[part] < _MAX_DEATHS:
                        log.warning("part %d is tried again: %s", part, in_brief)
                        waiting.append(part)
                    else:
                        self.failed[part] = FailedPart(part, raises[part] + deaths[part], reason)
        finally:
            for task in running:
                ray.cancel(task, force=True)

    def _remote(self, function: Callable[..., Any]) -> Any:
        # max_calls=0: a process stays for the next part, with its teacher; with GPUs Ray would end it after each.
        return self._ray.remote(
            num_cpus=self._settings.cpus_each,
            num_gpus=self._gpus_each,
            max_calls=0,
            max_retries=0,  # `run` counts them
        )(function)

    def _wait(self, task: Any) -> Any:
        while not self._ray.wait([task], timeout=_TICK_S)[0]:
            pass
        return self._ray.get(task)


def _cause(error: Any) -> Exception:
    cause = error.cause
    return cause if isinstance(cause, Exception) else error


# What a worker process keeps from part to part, by job: its teacher above all.
_at_work: dict[str, tuple[PartLabeller, list[BatchReport], int]] = {}


def _label_in_worker(part: int, held: Sequence[Any], key: str) -> _Done:
    if key not in _at_work:
        import ray

        _at_work.clear()  # of a driver that is gone: two teachers may be one too many
        job: LabelJob = ray.get(held[0])
        kept: list[BatchReport] = []
        _at_work[key] = (job.start(on_batch=kept.append), kept, job.decoders)
    labeller, reports, decoders = _at_work[key]
    reports.clear()
    with fixed_arithmetic(labeller.threads):
        record = labeller.label_part(part, workers=decoders)
    return _Done(record, BatchReport.total(reports))

"""What a build may be told besides teacher, images and output."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from relabel_store import spec
from relabel_store.errors import OptionError
from relabel_store.generate.precision import Precision
from relabel_store.generate.share import Share
from relabel_store.labels.values import ValueStep
from relabel_store.manifest import AbsentRule


class OnBadImage(StrEnum):
    """What to do about an image that cannot be decoded."""

    RECORD = "record"
    STOP = "stop"
    RETRY = "retry"  # record new ones, and try those again that an earlier run recorded


class Engine(StrEnum):
    """Who labels the parts."""

    LOCAL = "local"  # this process, on one device
    RAY = "ray"  # workers of a Ray cluster


@dataclass(frozen=True)
class BuildOptions:
    """What a build may be told besides teacher, images and output.

    Parameters
    ----------
    top_k
        Classes kept a cell; at most the class count.
    absent
        None is ``zero``, with a look at the first batch.
    name, licence, citation
        Of the labels, for the manifest.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:1``; for several at once ``cuda:all`` or a list with commas.
    precision
        None is bf16 on a GPU that has it, fp32 elsewhere.
    batch_size, workers
        Images a batch; processes that decode. None chooses by the device: on a GPU, the batch is the
        largest that fits and still gains.
    compile
        Compile the teacher's features.
    flip
        Average each map with that of the mirror image, mirrored back.
    encoding
        How the store lies in files, ``zarr``, ``parquet`` or ``packed``; None asks the end of its name.
    limit
        Label only so many images, spread evenly over all of them.
    ray_address, ray_workers
        Of the cluster, None for one of this machine; parts at once, None for as many as fit.
    dry_run
        Label three batches, say what the build will take, and make no store.
    """

    top_k: int = spec.DEFAULT_K
    value_step: ValueStep = field(default_factory=lambda: ValueStep(spec.DEFAULT_VALUE_STEP))
    absent: AbsentRule | None = None
    name: str | None = None
    licence: str | None = None
    citation: tuple[str, ...] = ()
    device: str = "auto"
    precision: Precision | None = None
    batch_size: int | None = None
    workers: int | None = None
    compile: bool = False
    flip: bool = False
    encoding: str | None = None
    shard_rows: int = spec.SHARD_ROWS
    limit: int | None = None
    on_bad_image: OnBadImage = OnBadImage.RECORD
    share: Share = field(default_factory=Share)
    engine: Engine = Engine.LOCAL
    ray_address: str | None = None
    ray_workers: int | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        for name, value, least in (
            ("top_k", self.top_k, 1),
            ("batch_size", self.batch_size, 1),
            ("workers", self.workers, 0),
            ("shard_rows", self.shard_rows, 1),
            ("limit", self.limit, 1),
            ("ray_workers", self.ray_workers, 1),
        ):
            if value is not None and value < least:
                raise OptionError(f"{name}: {value}, expected at least {least}")
        for name, text in (
            ("name", self.name),
            ("licence", self.licence),
            ("citation", " ".join(self.citation)),
        ):
            if text is not None and not _is_utf8(text):
                raise OptionError(f"{name}: {text!r}, expected text that is UTF-8")
        if self.encoding is not None and self.encoding not in spec.ENCODING_VERSIONS:
            raise OptionError(f"encoding: {self.encoding!r}, expected {' or '.join(spec.ENCODING_VERSIONS)}")
        if self.shard_rows > spec.CHUNK_ROWS and self.shard_rows % spec.CHUNK_ROWS:
            raise OptionError(
                f"shard_rows: {self.shard_rows}, expected a multiple of {spec.CHUNK_ROWS}, the rows of a chunk, "
                f"or at most {spec.CHUNK_ROWS}"
            )
        if self.engine is Engine.RAY and self.device not in ("auto", "cpu", "cuda"):
            raise OptionError(
                f"device: {self.device!r}, expected auto, cpu or cuda with engine 'ray', which assigns GPUs"
            )
        if self.engine is not Engine.RAY and (self.ray_address is not None or self.ray_workers is not None):
            raise OptionError("ray_address, ray_workers: given without engine 'ray'")
        if self.engine is Engine.RAY and self.dry_run:
            raise OptionError(
                "dry_run: with engine 'ray', expected 'local', because it times the device that it runs on; "
                "leave the engine out, on a machine like a worker's: n of them take an n-th of the time"
            )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

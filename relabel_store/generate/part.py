"""label_part: the labels of one part, the unit of work that every engine calls."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from relabel_store.errors import AbsentRuleError, BadImageStop, ImageReadError, NonFiniteLogitsError
from relabel_store.generate.batches import Batch, ImageFacts, decoded_batches, split_rows
from relabel_store.generate.observer import BatchReport
from relabel_store.generate.precision import Precision
from relabel_store.generate.profile import Profile, Stage
from relabel_store.generate.reduce import Kept
from relabel_store.generate.scoring import Scorer, Scoring
from relabel_store.generate.teacher import Teacher, TeacherInput
from relabel_store.images.source import ImageSource
from relabel_store.labels.pooling import pool_image
from relabel_store.labels.topk import sort_ranks
from relabel_store.labels.values import ValueStep
from relabel_store.manifest import AbsentRule, LabelSpec
from relabel_store.spec import indices_dtype
from relabel_store.store.journal import BadImage, PartRecord
from relabel_store.store.part_labels import PartLabels
from relabel_store.store.running import RunningNotes
from relabel_store.store.samples import FACTS_SCHEMA, Status
from relabel_store.store.writer import StoreWriter

# More negative logits than this, and "an absent class counts as 0" would rank absent classes above kept ones.
_MAX_NEGATIVE_FRACTION = 0.01


@dataclass(frozen=True)
class Scores:
    """What the teacher says of one batch, in host memory."""

    indices: NDArray[np.int32]  # (n, k, n_rows, n_cols)
    values: NDArray[np.float32]
    rest: NDArray[np.float32] | None  # (n, n_rows, n_cols)


@dataclass(frozen=True)
class UnencodedPart:
    """A part as the teacher left it, before rounding: encoding is work for another thread."""

    part: int
    scores: list[Scores]
    facts: list[ImageFacts]


class PartLabeller:
    """Labels parts with one teacher on one device.

    Parameters
    ----------
    is_absent_rule_named
        Whether the user asked for the absent rule by name. If not, the first batch is looked at for
        negative logits before the second one is labelled.
    stop_on_bad_image
        Raise rather than record an image that cannot be decoded.
    on_batch
        Called after each batch.
    """

    def __init__(
        self,
        teacher: Teacher,
        source: ImageSource,
        writer: StoreWriter,
        *,
        device: torch.device,
        is_absent_rule_named: bool = True,
        stop_on_bad_image: bool = False,
        on_batch: Callable[[BatchReport], None] | None = None,
    ) -> None:
        assert writer.manifest.build is not None
        self._teacher = teacher
        self._source = source
        self._writer = writer
        self._device = device
        self._label_map: LabelSpec = writer.manifest.label_map
        self._batch_size = writer.manifest.build.batch_size
        self._scorer = Scorer(
            teacher,
            device,
            precision=Precision(writer.manifest.teacher.precision),
            k=self._label_map.k,
            with_rest=self._label_map.absent is AbsentRule.REST,
            with_flip=writer.manifest.teacher.flip,
            pad_to=self._batch_size if writer.manifest.build.is_compiled else None,
        )
        self._notes = RunningNotes(writer.files)
        self.profile = Profile(device)
        """Where the time goes."""
        has_absent_classes = self._label_map.k < self._label_map.num_classes
        is_zero = self._label_map.absent is AbsentRule.ZERO
        self._must_check_absent_rule = has_absent_classes and is_zero and not is_absent_rule_named
        self._stop_on_bad_image = stop_on_bad_image
        self._on_batch = on_batch
        self._class_indices = writer.samples["class_index"].fill_null(-1).to_numpy()

    @property
    def threads(self) -> int:
        """CPU threads of one forward pass, as the manifest says."""
        assert self._writer.manifest.build is not None
        return self._writer.manifest.build.threads

    @property
    def batch_size(self) -> int:
        """Images a batch, as the manifest says."""
        return self._batch_size

    @property
    def input(self) -> TeacherInput:
        """What the teacher wants to see of an image."""
        return self._teacher.facts.input

    def label_part(self, part: int, *, workers: int = 0) -> PartRecord:
        """Label a part and commit it. Doing so twice, or in two places at once, does no harm."""
        (labels,) = self.label_parts([part], workers=workers)
        return self.write(labels)

    def write(self, labels: UnencodedPart) -> PartRecord:
        """Encode a part and commit it."""
        with self.profile.timed(Stage.ENCODE):
            encoded = self.encode(labels)
        with self.profile.timed(Stage.WRITE):
            record = self._writer.write_part(labels.part, encoded)
        self._notes.end(labels.part, len(record.rows))
        return record

    def label_parts(self, parts: Iterable[int], *, workers: int) -> Iterator[UnencodedPart]:
        """Yield the labels of some parts, whose images are decoded ahead across their borders."""
        self.profile.workers = workers
        batches = {part: self.batches_of(part) for part in parts}
        decoded = decoded_batches(
            self._source,
            self._teacher.facts.input,
            [rows for part in batches.values() for rows in part],
            workers=workers,
            pin_memory=self._device.type == "cuda",
        )
        scored = self.score(decoded)
        for part, rows in batches.items():
            self._notes.begin(part)
            pairs = list(itertools.islice(scored, len(rows)))
            facts = [facts for batch, _ in pairs for facts in batch.facts]
            yield UnencodedPart(part, [scores for _, scores in pairs], facts)

    def batches_of(self, part: int) -> list[range]:
        """Return the rows of each batch of a part; no batch crosses a part."""
        return split_rows(self._writer.manifest.rows_of_part(part), self._batch_size)

    def score(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Scores]]:
        """Score batch after batch, taking each result off the device while the next is computed."""
        running: tuple[Batch, Scoring] | None = None
        try:
            for batch in self._awaited(batches):
                if self._stop_on_bad_image:
                    self._require_good_images(batch)
                launched = batch, self._scorer.launch(batch.pixels)
                before, running = running, launched
                if before is not None:
                    yield self._finish(*before)
                if self._must_check_absent_rule and batch.is_good.any():
                    yield self._finish(*launched)  # which checks it, before the second batch is begun
                    running = None
        except (ImageReadError, BadImageStop):
            # What was launched before is whole, and may be all that its part was waiting for.
            if running is not None:
                yield self._finish(*running)
            raise
        if running is not None:
            yield self._finish(*running)

    def _awaited(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield batches, timing how long they are waited for."""
        iterator = iter(batches)
        while True:
            with self.profile.timed(Stage.WAIT):
                batch = next(iterator, None)
            if batch is None:
                return
            self.profile.seconds[Stage.READ] += batch.read_s
            self.profile.seconds[Stage.DECODE] += batch.decode_s
            yield batch

    def _finish(self, batch: Batch, scoring: Scoring) -> tuple[Batch, Scores]:
        kept = scoring.result(self.profile)
        self.profile.images += len(batch.rows)
        scores = _scores_of(kept)
        self._require_finite(batch, scores)
        if self._must_check_absent_rule and batch.is_good.any():
            self._require_positive_logits(batch, scores)
            self._must_check_absent_rule = False
        if self._on_batch is not None:
            self._on_batch(self._report(batch, scores))
        return batch, scores

    def _report(self, batch: Batch, scores: Scores) -> BatchReport:
        classes = self._class_indices[batch.rows.start : batch.rows.stop]
        counted = batch.is_good & (classes >= 0)
        pooled = pool_image(
            scores.indices[counted],
            scores.values[counted],
            num_classes=self._label_map.num_classes,
            rest=None if scores.rest is None else scores.rest[counted],
        )
        return BatchReport(
            samples=len(batch.rows),
            bad_images=int(np.count_nonzero(~batch.is_good)),
            known_class=int(np.count_nonzero(counted)),
            agreeing=int(np.count_nonzero(pooled.argmax(axis=1) == classes[counted])) if len(pooled) else 0,
        )

    def _require_good_images(self, batch: Batch) -> None:
        for facts in batch.facts:
            if facts.reason is not None:
                raise BadImageStop(
                    f"image {self._source.paths[facts.row]!r}: {facts.reason}; mend or remove it, "
                    "or build with --on-bad-image record"
                )

    def _require_positive_logits(self, batch: Batch, scores: Scores) -> None:
        values = scores.values[batch.is_good]
        negative = np.count_nonzero(values < 0) / max(values.size, 1)
        if negative > _MAX_NEGATIVE_FRACTION:
            raise AbsentRuleError(
                f"teacher {self._teacher.facts.name!r}: {negative:.0%} of the logits kept in the first batch are "
                f"negative, expected at most {_MAX_NEGATIVE_FRACTION:.0%}, because an absent class counts as 0 and "
                "would rank above them; use --absent rest, which stores what the absent classes share, "
                "or --absent zero to insist"
            )

    def _require_finite(self, batch: Batch, scores: Scores) -> None:
        is_finite = np.isfinite(scores.values).all(axis=(1, 2, 3))
        if scores.rest is not None and self._label_map.k < self._label_map.num_classes:
            # -inf for some of the classes not kept is a mask; for all of them nothing is left to share.
            is_finite &= np.isfinite(scores.rest).all(axis=(1, 2))
        broken = np.flatnonzero(~is_finite & batch.is_good)
        if len(broken):
            row = batch.rows[int(broken[0])]
            hint = (
                ""
                if self._scorer.precision is Precision.FP32
                else "; use --precision bf16 or fp32, which do not overflow"
            )
            raise NonFiniteLogitsError(
                f"teacher {self._teacher.facts.name!r} in {self._scorer.precision.value}: NaN or infinite logits for "
                f"{len(broken)} of {len(batch.rows)} images, {self._source.paths[row]!r} first, "
                f"expected finite ones{hint}"
            )

    def encode(self, part: UnencodedPart) -> PartLabels:
        """Round and sort a part as it is stored."""
        is_good = np.array([facts.reason is None for facts in part.facts])
        found = np.concatenate([scores.indices for scores in part.scores])
        kept = np.concatenate([scores.values for scores in part.scores])
        kept[~is_good] = 0  # whatever a black image gives; these rows are not stored
        values = ValueStep.parse(self._label_map.value_step).encode(kept)
        indices, ordered = sort_ranks(found.astype(indices_dtype(self._label_map.num_classes)), values)
        rest = None
        if self._label_map.absent is AbsentRule.REST:
            rest = np.concatenate([scores.rest for scores in part.scores if scores.rest is not None])
            rest[~is_good] = 0
            if self._label_map.k < self._label_map.num_classes:
                ValueStep(None).encode(rest)  # raises where float16 cannot hold it
        return PartLabels(
            indices=indices,
            values=ordered.astype(np.float16, copy=False),
            rest=None if rest is None else rest.astype(np.float16),
            facts=facts_table(part.facts),
            mtimes_ns=np.array([facts.mtime_ns for facts in part.facts], np.int64),
            bad_images=tuple(
                BadImage(facts.row, facts.reason) for facts in part.facts if facts.reason is not None
            ),
            exif_oriented=sum(facts.exif_orientation != 1 for facts in part.facts),
        )


def _scores_of(kept: Kept) -> Scores:
    rest = None if kept.rest is None else kept.rest.numpy()
    return Scores(kept.indices.int().numpy(), kept.values.numpy(), rest)


def facts_table(facts: list[ImageFacts]) -> pa.Table:
    """Return what was found out about some images in `samples.FACTS_SCHEMA`."""
    status = [Status.LABELLED.value if image.reason is None else Status.BAD_IMAGE.value for image in facts]
    columns = {
        name: [getattr(image, name) for image in facts] for name in FACTS_SCHEMA.names if name != "status"
    }
    return pa.table({**columns, "status": status}).select(FACTS_SCHEMA.names).cast(FACTS_SCHEMA)

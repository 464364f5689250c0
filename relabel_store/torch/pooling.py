"""LabelPooling on any device: label maps and crop boxes to soft targets.

What `relabel_store.labels.pooling` says slowly. Every step is a tensor operation of a shape that is known
beforehand: nothing waits for a device, ``torch.compile`` makes one graph of it, and the dense map of all classes
``(n, num_classes, n_rows, n_cols)`` is never made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from relabel_store.labels.boxes import MAX_EDGE, require_boxes
from relabel_store.labels.pooling import Variant, require_classes
from relabel_store.labels.settings import most_points, require_selection, require_settings, require_shapes
from relabel_store.torch.sparse import SparseTargets, softmax_by_class

__all__ = ["LabelPooling", "Variant"]

# Crops at a time on a CPU. With 64 the temporaries of 15x15x5 maps, 1.2 MB, stay in its cache and in the heap:
# those of 256 go back to the system after each batch, and faulting their pages in again takes half the time.
_CPU_CROPS = 64


class LabelPooling(nn.Module):
    """Pools the region of a crop from label maps into the crop's soft target.

    RoIAlign with one bin a cell of the result, box shifted by half a cell, ``aligned=False``, adaptive
    sampling; then softmax. Equal to torchvision's ``roi_align`` on the dense map.

    Parameters
    ----------
    num_classes
        The teacher's: the length of the class axis of the maps.
    output_size
        ``(rows, columns)`` of the target: ``(1, 1)`` for a label of the crop, such as ``(14, 14)`` for
        a label of each token.
    temperature
        Divides the pooled scores before softmax.
    variant
        Which of the paper's four kinds of target to make.
    legacy_xy_swap
        Pool the mirror image of the box across the diagonal, as published code does that gives boxes with y
        first to ``roi_align``, which reads x first. Only to reproduce numbers that were made so.
    classes
        The teacher's class index of each class of a student that knows only some, in the student's
        order. The softmax is over these. None: all, in the teacher's order.
    check
        Check boxes, class indices and shapes in every call and raise. This waits for the device.

    Examples
    --------
    >>> import torch
    >>> pool = LabelPooling(num_classes=3)
    >>> indices = torch.tensor([0, 2]).expand(1, 1, 1, 2)  # one sample, k = 1, a row of two cells
    >>> values = torch.full((1, 1, 1, 2), 4.0)
    >>> right_half = torch.tensor([[0.5, 0.0, 1.0, 1.0]])
    >>> pool(indices, values, right_half).argmax().item()
    2
    """

    def __init__(
        self,
        num_classes: int,
        output_size: tuple[int, int] = (1, 1),
        temperature: float = 1.0,
        variant: Variant | str = Variant.LOCALIZED_MULTI,
        legacy_xy_swap: bool = False,
        *,
        classes: Sequence[int] | None = None,
        check: bool = False,
    ) -> None:
        super().__init__()
        self.output_size = require_settings(num_classes, output_size, temperature)
        self.num_classes = num_classes
        self.temperature = float(temperature)
        self.variant = Variant(variant)
        self.legacy_xy_swap = legacy_xy_swap
        self.check = check
        self.selected_classes = None if classes is None else tuple(int(index) for index in classes)
        """The teacher's class index of each class of the targets; None where they are the teacher's."""
        self.num_targets = num_classes if classes is None else len(classes)
        """Length of the class axis of the targets."""
        self.student_class: Tensor | None
        self.register_buffer("student_class", _student_class(classes, num_classes), persistent=False)

    def extra_repr(self) -> str:
        """Return the settings, for the module's repr."""
        settings = f"{self.num_classes}, output_size={self.output_size}, temperature={self.temperature:g}"
        selection = "" if self.student_class is None else f", {self.num_targets} selected"
        swap = ", legacy_xy_swap=True" if self.legacy_xy_swap else ""
        return f"{settings}, variant={self.variant.value!r}{selection}{swap}"

    @torch.no_grad()
    def forward(
        self,
        indices: Tensor,
        values: Tensor,
        boxes_xyxy: Tensor,
        rest: Tensor | None = None,
        hflip: Tensor | None = None,
        vflip: Tensor | None = None,
    ) -> Tensor:
        """Return soft targets.

        Parameters
        ----------
        indices
            ``(n, k, n_rows, n_cols)``, of any integer dtype.
        values
            Same shape, of any floating dtype.
        boxes_xyxy
            ``(n, 4)``: ``(x0, y0, x1, y1)``, fractions of the full image, origin top left.
        rest
            ``(n, n_rows, n_cols)``: log-sum-exp of the classes not kept, which share it evenly. None: they
            count as 0.
        hflip, vflip
            Bool ``(n,)``: crops that were mirrored after cropping. Turns the cells of the target; of no
            consequence where there is only one.

        Returns
        -------
        Tensor
            float32 ``(n, num_targets)``, or ``(n, num_targets, rows, columns)`` where `output_size` is
            more than one cell; on the device of `indices`, without gradient. NaN for a box that encloses
            nothing, is not finite or has an edge past 2; and, where the maps are not on a CPU, for a sample
            with a class index that is not the teacher's.

        Raises
        ------
        ValueError
            On a CPU: a class index that is not the teacher's.
        BoxError, ValueError
            With ``check=True``: also a box or a shape that cannot be.
        """
        logits = self._class_last_logits(indices, values, boxes_xyxy, rest, hflip, vflip)
        if self.variant.is_single:
            targets = functional.one_hot(logits.argmax(dim=-1), self.num_targets).float()
            targets = targets + 0 * logits.sum(dim=-1, keepdim=True)  # keeps NaN
        else:
            scaled = logits if self.temperature == 1 else logits / self.temperature
            targets = torch.softmax(scaled, dim=-1, out=scaled)
        return self._class_second(targets)

    @torch.no_grad()
    def logits(
        self,
        indices: Tensor,
        values: Tensor,
        boxes_xyxy: Tensor,
        rest: Tensor | None = None,
        hflip: Tensor | None = None,
        vflip: Tensor | None = None,
    ) -> Tensor:
        """Return what `forward` does before temperature and softmax."""
        return self._class_second(self._class_last_logits(indices, values, boxes_xyxy, rest, hflip, vflip))

    def _class_second(self, pooled: Tensor) -> Tensor:
        if self.output_size == (1, 1):
            return pooled[:, 0, 0]
        return pooled.expand(-1, *self.output_size, -1).movedim(-1, 1)  # "global": one cell stands for all

    @torch.no_grad()
    def _class_last_logits(
        self,
        indices: Tensor,
        values: Tensor,
        boxes_xyxy: Tensor,
        rest: Tensor | None,
        hflip: Tensor | None,
        vflip: Tensor | None,
    ) -> Tensor:
        """Return ``(n, n_bins, n_bins, num_targets)``: softmax is fastest along the last axis."""
        if self.check:
            self._require_sound(indices, values, boxes_xyxy, rest)
        indices, is_known = self._known_classes(indices)
        scores, absent = self._scores_over_absent(values, rest)
        rows, columns = self._weights(boxes_xyxy, indices.shape[2:], hflip, vflip)
        if is_known is not None:
            rows = torch.where(is_known[:, None, None], rows, math.nan)
        n, bins = len(rows), (rows.shape[1], columns.shape[1])
        sums = rows.new_zeros(n, bins[0] * bins[1] * self._num_sums)
        if bins == (1, 1):
            cells = rows[:, 0, :, None] * columns[:, 0, None, :]  # (n, n_rows, n_cols)
            for into, index, score, weight in _pieces(_CPU_CROPS, sums, indices, scores, cells[:, None]):
                weighted = score.to(torch.float32, copy=True).mul_(weight)
                into.scatter_add_(1, self._classes_of(index).flatten(1), weighted.flatten(1))
        else:
            step = max(1, _CPU_CROPS // (bins[0] * bins[1]))
            for into, index, score, row, column in _pieces(step, sums, indices, scores, rows, columns):
                at, weighted = self._in_windows(self._classes_of(index), score.float(), row, column)
                into.scatter_add_(1, at.flatten(1), weighted.flatten(1))
        logits = sums.view(n, *bins, self._num_sums)[..., : self.num_targets]
        if absent is not None:
            logits = logits + _sum_over_cells(absent, rows, columns)[..., None]
        return logits

    @torch.no_grad()
    def sparse(
        self,
        indices: Tensor,
        values: Tensor,
        boxes_xyxy: Tensor,
        rest: Tensor | None = None,
        hflip: Tensor | None = None,  # noqa: ARG002 - of no consequence to a single cell
        vflip: Tensor | None = None,  # noqa: ARG002
    ) -> SparseTargets:
        """Return what `forward` does without the classes that no cell of a sample keeps.

        For tens of thousands of classes, where the dense targets of a batch would be large.

        Parameters
        ----------
        indices, values, boxes_xyxy, rest, hflip, vflip
            As for `forward`.

        Raises
        ------
        ValueError
            `output_size` is more than one cell, or the variant has one class only.
        """
        if self.output_size != (1, 1) or self.variant.is_single:
            raise ValueError(
                f"sparse targets: of output_size {self.output_size} and variant {self.variant.value!r}, "
                "expected (1, 1) and a variant with several classes"
            )
        if self.check:
            self._require_sound(indices, values, boxes_xyxy, rest)
        indices, is_known = self._known_classes(indices)
        scores, absent = self._scores_over_absent(values, rest)
        rows, columns = self._weights(boxes_xyxy, indices.shape[2:], None, None)
        if is_known is not None:
            rows = torch.where(is_known[:, None, None], rows, math.nan)
        weights = rows[:, 0, :, None] * columns[:, 0, None, :]
        weighted = (scores.float() * weights[:, None]).flatten(1)
        baseline = rows.new_zeros(len(rows))
        if absent is not None:
            baseline = _sum_over_cells(absent, rows, columns)[:, 0, 0]
        # NaN boxes have NaN weights, which must reach samples whose maps keep none of the student's classes.
        baseline = baseline + 0 * weights.sum(dim=(1, 2))
        return softmax_by_class(
            self._classes_of(indices).flatten(1),
            weighted / self.temperature,
            baseline / self.temperature,
            num_classes=self.num_targets,
        )

    def _scores_over_absent(self, values: Tensor, rest: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the kept scores less that of a class that was not kept, and the latter unless it is 0."""
        k = values.shape[1]
        if rest is None or k == self.num_classes:
            return values, None
        absent = rest.float() - math.log(self.num_classes - k)  # (n, n_rows, n_cols)
        return values.float() - absent[:, None], absent

    def _known_classes(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return class indices that are all the teacher's, and bool ``(n,)``, whose were so to begin with.

        The latter only where asking would wait for a device; elsewhere an index that is not raises.
        """
        if indices.device.type == "cpu" and not torch.compiler.is_compiling():
            require_classes(indices.numpy(), self.num_classes)
            return indices, None
        wide = indices.long()  # PyTorch cannot compare the unsigned types
        is_class = (wide >= 0) & (wide < self.num_classes)
        return torch.where(is_class, wide, 0), is_class.flatten(1).all(dim=1)

    def _classes_of(self, indices: Tensor) -> Tensor:
        """Return the column of the targets of each class index; `num_targets` where the student has none."""
        wide = indices.long()
        return wide if self.student_class is None else self.student_class[wide]

    @property
    def _num_sums(self) -> int:
        # One more column collects the classes that the student does not have.
        return self.num_targets + (self.student_class is not None)

    def _weights(
        self, boxes_xyxy: Tensor, grid: Sequence[int], hflip: Tensor | None, vflip: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return how much each row and each column of cells counts in each bin."""
        boxes = boxes_xyxy.float()
        if not self.variant.is_localized:
            boxes = torch.cat([torch.zeros_like(boxes[:, :2]), torch.ones_like(boxes[:, 2:])], dim=1)
        starts, stops = boxes[:, :2], boxes[:, 2:]
        is_box = ((starts < stops) & (starts >= -MAX_EDGE) & (stops <= MAX_EDGE)).all(dim=1, keepdim=True)
        starts, stops = torch.where(is_box, starts, 0), torch.where(is_box, stops, 0)
        x, y = (1, 0) if self.legacy_xy_swap else (0, 1)
        n_out = self.output_size if self.variant.is_localized else (1, 1)
        if grid[0] == grid[1] and n_out[0] == n_out[1]:  # half the calls, which is most of their time
            both = axis_weights(starts, stops, n_cells=grid[0], n_bins=n_out[0])
            rows, columns = both[:, y], both[:, x]
        else:
            rows = axis_weights(starts[:, y], stops[:, y], n_cells=grid[0], n_bins=n_out[0])
            columns = axis_weights(starts[:, x], stops[:, x], n_cells=grid[1], n_bins=n_out[1])
        if n_out[1] > 1 and hflip is not None:
            columns = torch.where(hflip[:, None, None], columns.flip(1), columns)
        if n_out[0] > 1 and vflip is not None:
            rows = torch.where(vflip[:, None, None], rows.flip(1), rows)
        return torch.where(is_box[:, :, None], rows, math.nan), columns

    def _in_windows(
        self, classes: Tensor, scores: Tensor, rows: Tensor, columns: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return where in the sums, and how much, the cells add that several bins can touch."""
        n, k = classes.shape[:2]
        row_at, row_weights = _window(rows)  # (n, n_bins, width)
        column_at, column_weights = _window(columns)
        n_bins = rows.shape[1] * columns.shape[1]
        cells = row_at[:, :, None, :, None] * classes.shape[3] + column_at[:, None, :, None, :]
        cells = cells.reshape(n, 1, -1).expand(-1, k, -1)  # (n, k, n_bins * window)
        weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
        weighted = scores.flatten(2).gather(2, cells) * weights.reshape(n, 1, -1)
        bins = torch.arange(n_bins, device=cells.device).repeat_interleave(cells.shape[2] // n_bins)
        return bins * self._num_sums + classes.flatten(2).gather(2, cells), weighted

    def _require_sound(
        self, indices: Tensor, values: Tensor, boxes_xyxy: Tensor, rest: Tensor | None
    ) -> None:
        require_shapes(indices.shape, values.shape, boxes_xyxy.shape, None if rest is None else rest.shape)
        require_boxes(boxes_xyxy.detach().float().cpu().numpy())
        require_classes(indices.cpu().numpy(), self.num_classes)


def _pieces(n: int, *tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Yield tensors `n` crops at a time; all at once on a device that likes large batches."""
    if tensors[0].device.type != "cpu" or torch.compiler.is_compiling():
        return [tensors]
    starts = range(0, len(tensors[0]), n)
    return (tuple(tensor[start : start + n] for tensor in tensors) for start in starts)


def _sum_over_cells(cells: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return ``(n, n_row_bins, n_column_bins)``: cells, summed with the weights of each bin."""
    kind = cells.device.type
    if not torch.amp.is_autocast_available(kind):
        return rows @ cells @ columns.mT
    with torch.autocast(kind, enabled=False):  # bfloat16 would be off by a hundredth
        return rows @ cells @ columns.mT


def axis_weights(starts: Tensor, stops: Tensor, *, n_cells: int, n_bins: int = 1) -> Tensor:
    """Return by how much each cell of an axis counts in each bin of a box.

    Parameters
    ----------
    starts, stops
        float32, of any shape: edges of the boxes along this axis, fractions of the image.

    Returns
    -------
    Tensor
        float32, of two more dimensions, ``(n_bins, n_cells)``.

    Notes
    -----
    As `relabel_store.labels.pooling.axis_weights`, which see. Each sample point gives its weight to two
    cells.
    """
    first = starts * n_cells - 0.5
    size = (stops * n_cells).sub_(0.5).sub_(first).clamp_(min=1).div_(n_bins)[..., None]
    n_points = size.ceil()
    steps = torch.arange(_most_points(n_points, n_cells, n_bins), device=starts.device) + 0.5
    points = (steps * size).div_(n_points)[..., None, :]
    if n_bins == 1:
        points = points + first[..., None, None]
    else:
        bins = torch.arange(n_bins, device=starts.device) * size
        points = points + bins.add_(first[..., None])[..., None]  # (..., n_bins, most points)
    counts = (points >= -1) & (points <= n_cells) & (steps < n_points)[..., None, :]
    weight = counts / n_points[..., None]
    low = points.clamp_(0, n_cells - 1).long()
    above = points.sub_(low).mul_(weight)
    weights = points.new_zeros(*points.shape[:-1], n_cells + 1)
    weights.scatter_add_(-1, low, weight.sub_(above)).scatter_add_(-1, low + 1, above)
    return weights[..., :n_cells]


def _most_points(n_points: Tensor, n_cells: int, n_bins: int) -> int:
    """Return how many sample points a bin has at most."""
    if n_points.device.type == "cpu" and not torch.compiler.is_compiling() and n_points.numel():
        return int(n_points.max())
    return most_points(n_cells, n_bins)


def _window(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cells that each bin touches, neighbours all, and their weights: ``(n, n_bins, width)``."""
    n_bins, n_cells = weights.shape[1:]
    touches = weights != 0
    width = min(n_cells, most_points(n_cells, n_bins) + 2)
    if weights.device.type == "cpu" and not torch.compiler.is_compiling() and len(weights):
        width = max(1, int(touches.sum(dim=2).max()))
    first = touches.int().argmax(dim=2).clamp(max=n_cells - width)
    at = first[:, :, None] + torch.arange(width, device=weights.device)
    return at, weights.gather(2, at)


def _student_class(classes: Sequence[int] | None, num_classes: int) -> Tensor | None:
    """Return the student's class of each class of the teacher, one past the last where it has none."""
    if classes is None:
        return None
    chosen = torch.from_numpy(require_selection(classes, num_classes))
    table = torch.full((num_classes,), len(chosen))
    table[chosen] = torch.arange(len(chosen))
    return table

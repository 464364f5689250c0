"""What a user may say about a teacher besides its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from relabel_store.errors import OptionError

HEADS = ("replay", "linearized")


@dataclass(frozen=True)
class TeacherOptions:
    """What a user may say about a teacher besides its name; None leaves it to the teacher.

    Parameters
    ----------
    weights
        A ``.safetensors``, ``.pth`` or ``.pt`` file with a state dict.
    class_names
        A text file with one class a line, or JSON with a list of them.
    input_size
        Pixels a side, or ``(height, width)``.
    head
        ``"replay"`` or ``"linearized"``: how a head that is not linear scores a cell.
    """

    weights: Path | None = None
    class_names: Path | None = None
    input_size: int | tuple[int, int] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    interpolation: str | None = None
    head: str | None = None

    def __post_init__(self) -> None:
        if self.head is not None and self.head not in HEADS:
            raise OptionError(f"head: {self.head!r}, expected {' or '.join(HEADS)}")
        sides = () if self.input_size is None else pair_of(self.input_size)
        if not all(side >= 1 for side in sides):
            raise OptionError(f"input_size: {self.input_size}, expected at least one pixel a side")
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if numbers is not None and not all(0 <= number <= 1 for number in numbers):
                raise OptionError(f"{name}: {numbers}, expected fractions of the largest pixel value, 0 to 1")
        if self.std is not None and min(self.std) <= 0:
            raise OptionError(f"std: {self.std}, expected more than 0")


def pair_of(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return ``(height, width)`` of a size."""
    return (size, size) if isinstance(size, int) else size

"""Value encodings: what a teacher's float32 score becomes on disk, and by how much it may differ."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relabel_store.errors import ValueRangeError
from relabel_store.labels.topk import FloatArray

_MAGNITUDE = np.int16(0x7FFF)
_SIGN = np.int32(
    -(2**31)
)  # of a float32; the one of a float16 is copied into it when its bits become an int32
_FLOAT16_MAX = float(np.finfo(np.float16).max)
_FLOAT16_EXACT_INTEGERS = 2048  # float16 has 11 significant bits: multiples of a step are exact up to 2048


@dataclass(frozen=True)
class ValueStep:
    """How scores are rounded before they are stored as float16.

    Parameters
    ----------
    step
        Spacing of the stored values, a power of two from 1/1024 to 1, or None for float16's own
        spacing ("exact").
    """

    step: float | None

    def __post_init__(self) -> None:
        if self.step is None:
            return
        is_power_of_two = self.step > 0 and math.frexp(self.step)[0] == 0.5
        if not (is_power_of_two and 2**-10 <= self.step <= 1):
            raise ValueError(
                f"value step: {self.step!r}, expected 'exact' or a power of two from 1/1024 to 1, "
                "so that float16 holds its multiples exactly"
            )

    @classmethod
    def parse(cls, text: str | float) -> ValueStep:
        """Return the step named by ``"exact"``, ``"0.125"`` or a number.

        Raises
        ------
        ValueError
            It is neither.
        """
        if text == "exact":
            return cls(None)
        try:
            return cls(float(text))
        except ValueError as error:
            raise ValueError(str(error) if "value step" in str(error) else _unreadable(text)) from None

    def to_json(self) -> float | str:
        """Return ``"exact"`` or the step, as the manifest holds it."""
        return "exact" if self.step is None else self.step

    @property
    def limit(self) -> float:
        """The largest magnitude that can be stored without a larger error than the step promises."""
        return _FLOAT16_MAX if self.step is None else min(self.step * _FLOAT16_EXACT_INTEGERS, _FLOAT16_MAX)

    def encode(self, scores: FloatArray) -> NDArray[np.float16]:
        """Return scores as stored: the nearest multiple of the step (ties to even), float16.

        Parameters
        ----------
        scores
            float32 or float64, any shape, finite.

        Returns
        -------
        ndarray
            float16, same shape; at most half a step from `scores`.

        Raises
        ------
        ValueRangeError
            A score lies past `limit`.
        """
        largest = float(np.abs(scores).max(initial=0.0))
        if not largest <= self.limit:
            raise ValueRangeError(
                f"teacher score: {largest:g}, expected at most {self.limit:g}, past which float16 cannot hold "
                f"value step {self.to_json()}; choose a larger --value-step or 'exact'"
            )
        if self.step is None:
            return scores.astype(np.float16)
        steps = np.rint(scores / np.float32(self.step))
        # Adding 0 turns the -0 of small negative scores into 0: one value, one pattern of bits.
        rounded: NDArray[np.float16] = (steps * np.float32(self.step) + np.float32(0)).astype(np.float16)
        return rounded


def order_of(values: NDArray[np.float16]) -> NDArray[np.int16]:
    """Return integers that compare as float16 numbers do, in a fifth of the time; -0 is 0.

    Parameters
    ----------
    values
        Any shape; without NaN, which would be the largest or the least.
    """
    bits = np.ascontiguousarray(values).view(np.int16)
    sign = bits >> 15  # 0, or -1 where the sign bit is set
    return ((bits & _MAGNITUDE) ^ sign) - sign


def value_of_order(order: int) -> float:
    """Return the number that `order_of` gives an integer for."""
    magnitude = float(np.uint16(abs(order)).view(np.float16))
    return -magnitude if order < 0 else magnitude


def as_float32(values: NDArray[np.float16], scale: float = 1.0) -> NDArray[np.float32]:
    """Return finite float16 numbers as float32, times a power of two; a quarter of the time of NumPy's conversion.

    A float16 whose bits but the sign are moved 13 to the left is a float32 that is smaller by 2**112.
    """
    bits = np.ascontiguousarray(values).view(np.int16).astype(np.int32)  # the sign stays the sign
    numbers = (((bits & int(_MAGNITUDE)) << 13) | (bits & _SIGN)).view(np.float32)
    numbers *= np.float32(2.0**112 * scale)
    return numbers


def _unreadable(text: object) -> str:
    return f"value step: {text!r}, expected 'exact' or a power of two from 1/1024 to 1"

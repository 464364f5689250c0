"""Parameter types: text on the command line to values of the library."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from relabel_store.errors import OptionError
from relabel_store.labels.values import ValueStep
from relabel_store.store.location import open_files


def require_outside(option: str, path: Path, store: Path | str) -> None:
    """Raise a usage error for a file to be written inside a store."""
    if isinstance(store, Path) and path.resolve().is_relative_to(store.resolve()):
        raise click.UsageError(
            f"{option} {str(path)!r}: a store holds nothing but itself; write it elsewhere"
        )


class StoreType(click.ParamType[Any]):
    """A path, or a URL as text: pathlib would take one of its slashes."""

    name = "PATH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | str:
        """Return a path or a URL."""
        if isinstance(value, Path):
            return value
        if not value:
            self.fail("an empty path", param, ctx)
        try:
            return open_files(value).path or str(value)
        except OptionError as error:
            self.fail(str(error), param, ctx)


class ValueStepType(click.ParamType[Any]):
    """``exact`` or a power of two."""

    name = "STEP"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """Return ``"exact"`` or the number."""
        try:
            return ValueStep.parse(value).to_json()
        except ValueError as error:
            self.fail(str(error), param, ctx)


class ChannelsType(click.ParamType[Any]):
    """One number for all channels, or three with commas between them."""

    name = "R,G,B"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float, float]:
        """Return three numbers."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = [float(number) for number in value.split(",")]
        except ValueError:
            self.fail(f"{value!r} is not one number or three, such as 0.5 or 0.485,0.456,0.406", param, ctx)
        if len(numbers) == 1:
            numbers *= 3
        if len(numbers) != 3:
            self.fail(f"{value!r} has {len(numbers)} numbers, expected one or three", param, ctx)
        return numbers[0], numbers[1], numbers[2]


class InputSizeType(click.ParamType[Any]):
    """Pixels a side, or height and width."""

    name = "N|HxW"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | tuple[int, int]:
        """Return one number, or ``(height, width)``."""
        if not isinstance(value, str):
            found: int | tuple[int, int] = value
            return found
        match = re.fullmatch(r"([1-9]\d*)(?:[xX×]([1-9]\d*))?", value.strip())
        if match is None:
            self.fail(
                f"{value!r} is not pixels a side such as 475, or height and width such as 384x512", param, ctx
            )
        height, width = match.groups()
        return int(height) if width is None else (int(height), int(width))


class ShareType(click.ParamType[Any]):
    """``I/N``, 0-based, or ``auto``."""

    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text after checking it."""
        if value == "auto":
            return "auto"
        index, slash, count = str(value).partition("/")
        if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            self.fail(f"{value!r} is no share, expected 0/N to N-1/N such as 0/8, or auto", param, ctx)
        return str(value)

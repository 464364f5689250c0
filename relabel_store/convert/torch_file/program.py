"""The pickle programs that torch writes for tensors, followed step by step: they make descriptions, never objects.

A pickle is a program for a small machine. ``pickle.load`` runs it and calls whatever function it names. Here only
the steps that occur in files of tensors are known, only the few names that stand in them, and what such a name would
have made is written down instead: a `Storage` or a `TensorPlan`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from relabel_store.errors import FormatError

MAX_STEPS = 100_000  # of one program; a tensor takes about sixty


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of numbers in the file.

    Parameters
    ----------
    kind
        torch's name of the class, such as ``FloatStorage``.
    key
        Names its bytes in the file.
    length
        Count of numbers.
    """

    kind: str
    key: str
    length: int


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """Which numbers of a storage make up a tensor; strides and offset in numbers, as the file says them."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Name:
    """A global name of the program: of a function that torch would call, or of a kind of storage."""

    def __init__(self, text: str) -> None:
        self.text = text


_REBUILD = _Name("torch._utils _rebuild_tensor_v2")
_ORDERED_DICT = _Name("collections OrderedDict")
_KINDS = ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Char", "Byte", "Bool")
_KNOWN = {name.text: name for name in (_REBUILD, _ORDERED_DICT)}
_KNOWN |= {f"torch {kind}Storage": _Name(f"torch {kind}Storage") for kind in _KINDS}

_MARK = object()
_LITTLE = {size: struct.Struct(f"<{code}") for size, code in ((2, "H"), (4, "i"))}
_FLOAT = struct.Struct(">d")


def run(data: bytes, start: int = 0) -> tuple[Any, int]:
    """Return what a program makes, and where it ends.

    Returns
    -------
    made
        Descriptions in tuples, lists and dictionaries, with None, truth values, numbers and strings among them.
    end
        Offset of the byte after the program.

    Raises
    ------
    FormatError
        It takes a step, or names a function, that files of tensors have no need of; or it is damaged.
    """
    machine = _Machine(data, start)
    try:
        return machine.run(), machine.at
    except (IndexError, KeyError, struct.error, UnicodeDecodeError, TypeError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"torch file: its pickle breaks off or is damaged, at byte {machine.at}") from error


class _Machine:
    """Stack, memory and the position in the program."""

    def __init__(self, data: bytes, start: int) -> None:
        self.data, self.at = data, start
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(MAX_STEPS):
            code = self.data[self.at]
            self.at += 1
            if code == ord("."):
                (made,) = self.stack
                if made is _MARK:
                    raise ValueError("a mark is left")
                return made
            step = _STEPS.get(code)
            if step is None:
                raise FormatError(
                    f"torch file: step {bytes([code])!r} at byte {self.at - 1} of its pickle, which files of tensors "
                    "do not have; expected a tensor as torch.save writes it"
                )
            step(self)
        raise FormatError(f"torch file: more than {MAX_STEPS} steps in its pickle, expected one tensor")

    def take(self, size: int) -> bytes:
        taken = self.data[self.at : self.at + size]
        if len(taken) != size:
            raise IndexError("the program ends here")
        self.at += size
        return taken

    def line(self) -> str:
        end = self.data.index(b"\n", self.at, self.at + 200)
        line = self.data[self.at : end].decode()
        self.at = end + 1
        return line

    def number(self, size: int) -> int:
        if size == 1:
            return self.take(1)[0]
        number: int = _LITTLE[size].unpack(self.take(size))[0]
        return number

    def length(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def pop_to_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise IndexError("no mark")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def pop(self) -> Any:
        top = self.stack.pop()
        if top is _MARK:
            raise ValueError("a mark is no value")
        return top

    def pop_some(self, count: int) -> tuple[Any, ...]:
        return tuple(self.pop() for _ in range(count))[::-1]


def _push(value: Any, machine: _Machine) -> None:
    machine.stack.append(value)


def _global(machine: _Machine) -> None:
    name = f"{machine.line()} {machine.line()}"
    known = _KNOWN.get(name)
    if known is None:
        raise FormatError(
            f"torch file: its pickle names {name.replace(' ', '.')!r}, which no file of tensors needs and which was "
            "not called; expected a tensor as torch.save writes it"
        )
    machine.stack.append(known)


def _storage(machine: _Machine) -> None:
    """A storage is named by a tuple, in the older files with a view of another storage at its end."""
    match machine.pop():
        case ("storage", _Name() as kind, str(key), str(), int(length)) | (
            "storage",
            _Name() as kind,
            str(key),
            str(),
            int(length),
            None,
        ) if kind.text.endswith("Storage") and length >= 0:
            machine.stack.append(Storage(kind.text.removeprefix("torch "), key, length))
        case _:
            raise FormatError("torch file: its pickle names no storage where it should")


def _reduce(machine: _Machine) -> None:
    function, arguments = machine.pop_some(2)
    match function, arguments:
        case _Name(), () if function is _ORDERED_DICT:
            machine.stack.append({})
        case (_Name(), (Storage() as storage, int(offset), tuple(shape), tuple(strides), bool(), *rest)) if (
            function is _REBUILD and len(rest) <= 2
        ):
            if not all(type(size) is int for size in (*shape, *strides)):
                raise FormatError("torch file: the shape of its tensor is not made of integers")
            machine.stack.append(TensorPlan(storage, offset, shape, strides))
        case _:
            raise FormatError(
                "torch file: its pickle makes something that is no plain tensor; expected one as torch.save writes it"
            )


def _long(machine: _Machine) -> None:
    machine.stack.append(int.from_bytes(machine.take(machine.number(1)), "little", signed=True))


def _text(machine: _Machine) -> None:
    machine.stack.append(machine.take(machine.length()).decode())


def _put(size: int, machine: _Machine) -> None:
    key = machine.number(1) if size == 1 else machine.length()
    if machine.stack[-1] is _MARK:
        raise ValueError("a mark is no value")
    machine.memory[key] = machine.stack[-1]


def _get(size: int, machine: _Machine) -> None:
    machine.stack.append(machine.memory[machine.number(1) if size == 1 else machine.length()])


def _integer(size: int, machine: _Machine) -> None:
    machine.stack.append(machine.number(size))


def _tuple_of(count: int, machine: _Machine) -> None:
    machine.stack.append(machine.pop_some(count))


def _append(machine: _Machine) -> None:
    _of(list, machine.stack[-2]).append(machine.pop())


def _append_all(machine: _Machine) -> None:
    items = machine.pop_to_mark()
    _of(list, machine.stack[-1]).extend(items)


def _set_item(machine: _Machine) -> None:
    key, value = machine.pop_some(2)
    _set(machine, [key, value])


def _set_items(machine: _Machine) -> None:
    _set(machine, machine.pop_to_mark())


def _set(machine: _Machine, items: list[Any]) -> None:
    target = _of(dict, machine.stack[-1])
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str | int):
            raise FormatError("torch file: a key of its dictionary is neither text nor an integer")
        target[key] = value


def _of(kind: type[Any], value: Any) -> Any:
    if type(value) is not kind:
        raise ValueError(f"no {kind.__name__}")
    return value


def _protocol(machine: _Machine) -> None:
    version = machine.number(1)
    if version != 2:
        raise FormatError(
            f"torch file: pickle protocol {version}, expected 2, which torch.save writes by default"
        )


_STEPS_BY_NAME: dict[str, Callable[[_Machine], None]] = {
    "\x80": _protocol,
    "c": _global,
    "Q": _storage,
    "R": _reduce,
    "X": _text,
    "q": partial(_put, 1),
    "r": partial(_put, 4),
    "h": partial(_get, 1),
    "j": partial(_get, 4),
    "K": partial(_integer, 1),
    "M": partial(_integer, 2),
    "J": partial(_integer, 4),
    "\x8a": _long,
    "G": lambda machine: machine.stack.append(_FLOAT.unpack(machine.take(8))[0]),
    "(": partial(_push, _MARK),
    "t": lambda machine: machine.stack.append(tuple(machine.pop_to_mark())),
    ")": partial(_push, ()),
    "\x85": partial(_tuple_of, 1),
    "\x86": partial(_tuple_of, 2),
    "\x87": partial(_tuple_of, 3),
    "]": lambda machine: machine.stack.append([]),
    "a": _append,
    "e": _append_all,
    "}": lambda machine: machine.stack.append({}),
    "s": _set_item,
    "u": _set_items,
    "N": partial(_push, None),
    "\x88": partial(_push, True),
    "\x89": partial(_push, False),
}
_STEPS = {ord(code): step for code, step in _STEPS_BY_NAME.items()}

"""Bytes of a file that ``torch.save`` wrote to the tensors in it, as NumPy arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relabel_store.convert.torch_file.archive import Archive
from relabel_store.convert.torch_file.program import Storage, TensorPlan, run
from relabel_store.errors import FormatError

_MAGIC = 0x1950A86A20F9469CFC6C  # torch's, of files from before 1.6
_PROTOCOL = 1001
_MAX_DIMENSIONS = 16
_MAX_DEPTH = 16  # of lists in lists
_MAX_ITEMS = 10_000
_MAX_PROGRAM = 1 << 20  # bytes

# torch's name, our name, and how NumPy reads the bytes; it has no bfloat16, which is the upper half of a float32.
_DTYPES = {
    "FloatStorage": ("float32", "f4"),
    "HalfStorage": ("float16", "f2"),
    "BFloat16Storage": ("bfloat16", "u2"),
    "DoubleStorage": ("float64", "f8"),
    "LongStorage": ("int64", "i8"),
    "IntStorage": ("int32", "i4"),
    "ShortStorage": ("int16", "i2"),
    "CharStorage": ("int8", "i1"),
    "ByteStorage": ("uint8", "u1"),
    "BoolStorage": ("bool", "?"),
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor.

    Attributes
    ----------
    dtype
        What torch calls it, without ``torch.``.
    array
        Its numbers, read-only; of ``bfloat16`` as float32.
    """

    dtype: str
    array: NDArray[Any]


def read_tensor(data: bytes) -> Tensor:
    """Return the tensor of a file that holds one and nothing else.

    Parameters
    ----------
    data
        The whole file, as ``torch.save`` of any version since 0.4 wrote it.

    Raises
    ------
    FormatError
        It is no such file, is damaged, or holds something else; nothing in it was run.
    """
    found = read_object(data)
    if not isinstance(found, Tensor):
        raise FormatError(f"torch file: a {type(found).__name__}, expected a tensor")
    return found


def read_object(data: bytes) -> Any:
    """Return what a file holds: `Tensor` in tuples, lists, dictionaries, with numbers and strings among them.

    Raises
    ------
    FormatError
        As for `read_tensor`.
    """
    if data[:4] == b"PK\x03\x04":
        return _read_zip(data)
    if data[:2] == b"\x80\x02":
        return _read_legacy(data)
    if not data:
        raise FormatError("torch file: it is empty")
    raise FormatError(
        f"torch file: begins with {data[:4]!r}, expected a zip archive or a pickle as torch.save writes"
    )


def _read_zip(data: bytes) -> Any:
    archive = Archive(data)
    programs = [name for name in archive.names() if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(programs) != 1:
        raise FormatError(f"torch file: {len(programs)} members 'data.pkl' in its zip archive, expected one")
    folder = programs[0].removesuffix("data.pkl")
    order = _byte_order(archive.read(f"{folder}byteorder")) if f"{folder}byteorder" in archive else "<"
    program = archive.read(programs[0])
    return _materialize(
        _run_alone(program), lambda storage: archive.read(f"{folder}data/{storage.key}"), order
    )


def _byte_order(text: bytes) -> str:
    if text not in (b"little", b"big"):
        raise FormatError(f"torch file: byte order {text[:20]!r}, expected 'little' or 'big'")
    return "<" if text == b"little" else ">"


@lru_cache(16)
def _run_alone(program: bytes) -> Any:
    """Return what a member's program makes: the same for all maps of one shape, so it is followed once for all."""
    if len(program) > _MAX_PROGRAM:
        raise FormatError(f"torch file: a pickle of {len(program)} bytes, expected {_MAX_PROGRAM} at most")
    made, end = run(program)
    if end != len(program):
        raise FormatError("torch file: more follows after its pickle")
    return made


def _read_legacy(data: bytes) -> Any:
    """Read the older kind: pickles of a magic number, a version, the machine and the object, keys, then storages."""
    magic, at = run(data)
    if magic != _MAGIC:
        raise FormatError(
            "torch file: a pickle that torch.save did not write, expected one with its magic number"
        )
    version, at = run(data, at)
    machine, at = run(data, at)
    if (
        version != _PROTOCOL
        or not isinstance(machine, dict)
        or not isinstance(machine.get("little_endian"), bool)
    ):
        raise FormatError(f"torch file: version {version!r} of its older form, expected {_PROTOCOL}")
    order = "<" if machine["little_endian"] else ">"
    made, at = run(data, at)
    keys, at = run(data, at)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise FormatError("torch file: the list of its storages is damaged")
    storages = {storage.key: storage for storage in _storages(made)}
    if sorted(keys) != sorted(storages):
        raise FormatError("torch file: the list of its storages is not that of its tensors")
    contents = {}
    for key in keys:
        storage, size = storages[key], _dtype(storages[key], order).itemsize
        length = int.from_bytes(data[at : at + 8], "little" if order == "<" else "big")
        at += 8
        if length != storage.length or at + length * size > len(data):
            raise FormatError(
                f"torch file: {len(data) - at} bytes left where {storage.length} numbers of {size} bytes should be; "
                "it was cut off or is damaged"
            )
        contents[key] = data[at : at + length * size]
        at += length * size
    if at != len(data):
        raise FormatError(f"torch file: {len(data) - at} bytes follow after its last storage")
    return _materialize(made, lambda storage: contents[storage.key], order)


def _storages(made: Any) -> list[Storage]:
    found: list[Storage] = []

    def note(plan: TensorPlan) -> None:
        found.append(plan.storage)

    _walk(made, note)
    if len({storage.key for storage in found}) != len(set(found)):
        raise FormatError("torch file: two tensors describe one storage differently")
    return found


def _materialize(made: Any, content_of: Callable[[Storage], bytes], order: str) -> Any:
    arrays: dict[Storage, NDArray[Any]] = {}

    def array_of(plan: TensorPlan) -> Tensor:
        storage = plan.storage
        if storage not in arrays:
            arrays[storage] = _numbers(storage, content_of(storage), order)
        return Tensor(_DTYPES[storage.kind][0], _view(plan, arrays[storage]))

    return _walk(made, array_of)


def _walk(made: Any, visit: Callable[[TensorPlan], Any]) -> Any:
    """Return the same with another thing in the place of each tensor; lists that hold each other end it."""
    left = _MAX_ITEMS

    def convert(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > _MAX_DEPTH:
            raise FormatError("torch file: too many things in one another, expected a tensor")
        match value:
            case TensorPlan():
                return visit(value)
            case tuple():
                return tuple(convert(item, depth + 1) for item in value)
            case list():
                return [convert(item, depth + 1) for item in value]
            case dict():
                return {key: convert(item, depth + 1) for key, item in value.items()}
            case None | bool() | int() | float() | str():
                return value
        raise FormatError("torch file: a storage without a tensor, expected a tensor")

    return convert(made, 0)


def _dtype(storage: Storage, order: str) -> np.dtype[Any]:
    return np.dtype(order + _DTYPES[storage.kind][1])


def _numbers(storage: Storage, content: bytes, order: str) -> NDArray[Any]:
    dtype = _dtype(storage, order)
    if len(content) != storage.length * dtype.itemsize:
        raise FormatError(
            f"torch file: {len(content)} bytes of numbers, expected {storage.length} of {dtype.itemsize} bytes each"
        )
    if dtype.kind == "b" and content.translate(None, b"\x00\x01"):
        raise FormatError("torch file: truth values that are neither 0 nor 1")
    numbers = np.frombuffer(content, dtype)
    if storage.kind == "BFloat16Storage":
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.astype(dtype.newbyteorder("="), copy=False)


def _view(plan: TensorPlan, numbers: NDArray[Any]) -> NDArray[Any]:
    """Return the numbers that a tensor takes out of a storage, after checking that they are all inside."""
    shape, strides, offset = plan.shape, plan.strides, plan.offset
    if len(shape) != len(strides) or len(shape) > _MAX_DIMENSIONS or min((offset, *shape, *strides)) < 0:
        raise FormatError(f"torch file: a tensor of shape {_shown(shape)} and strides {_shown(strides)}")
    count = math.prod(shape)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    # More numbers than there are would be one number many times: a few bytes that fill the memory.
    if not 0 < count <= len(numbers) or last >= len(numbers):
        raise FormatError(
            f"torch file: a tensor of shape {_shown(shape)} and strides {_shown(strides)} from {offset} on, expected "
            f"one of the {len(numbers)} numbers that are there"
        )
    size = numbers.itemsize
    view: NDArray[Any] = np.ndarray(
        shape, numbers.dtype, numbers.data, offset * size, tuple(stride * size for stride in strides)
    )
    view.flags.writeable = False
    return view


def _shown(numbers: tuple[int, ...]) -> str:
    return str(list(numbers)) if all(abs(number) < 1 << 64 for number in numbers[:_MAX_DIMENSIONS]) else "[…]"

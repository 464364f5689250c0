"""A PyTorch file of one tensor, written without PyTorch: only data and checksum differ from one to the next."""

from __future__ import annotations

import math
import pickle
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relabel_store.convert.targets.zip_files import Member, directory

_STORAGES = {np.dtype(np.float16): "HalfStorage", np.dtype(np.float32): "FloatStorage"}
_FOLDER = "archive"
_DATA = f"{_FOLDER}/data/0"
_ALIGNMENT = 64  # of the data in the file, as PyTorch aligns it so that it can be mapped


class TensorFile:
    """Writes tensors of one shape and dtype as the bytes of `torch.save`, in the zip form it has since 1.6.

    Parameters
    ----------
    dtype
        float16 or float32.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._dtype = dtype.newbyteorder("<")
        self._shape = shape
        self._size = math.prod(shape) * dtype.itemsize
        self._before, self._at = _members_before(pickled_tensor(shape, dtype))

    def encode(self, tensor: NDArray[Any]) -> bytes:
        """Return a file.

        Parameters
        ----------
        tensor
            Of the shape and dtype.
        """
        assert tensor.shape == self._shape
        data = np.ascontiguousarray(tensor, self._dtype).tobytes()
        member = self._member(zlib.crc32(data))
        version = _stored(f"{_FOLDER}/version", b"3\n", self._at + len(member.local_header()) + self._size)
        content = [*_content(self._before), member.local_header(), data, version.local_header(), b"3\n"]
        end = version.offset + len(version.local_header()) + version.size
        members = [member for member, _ in self._before]
        return b"".join([*content, directory([*members, member, version], end)])

    def _member(self, crc: int) -> Member:
        bare = Member(_DATA, crc, self._size, self._size, self._at)
        return Member(_DATA, crc, self._size, self._size, self._at, padding=_padding(bare))


def _padding(member: Member) -> bytes:
    """Return the extra field that brings a member's content to its alignment."""
    start = member.offset + len(member.local_header()) + 4
    missing = -start % _ALIGNMENT
    return struct.pack("<2sH", b"FB", missing) + b"Z" * missing


_Content = list[tuple[Member, bytes]]


def _members_before(pickled: bytes) -> tuple[_Content, int]:
    members, at = [], 0
    for name, data in (("data.pkl", pickled), ("byteorder", b"little")):
        member = _stored(f"{_FOLDER}/{name}", data, at)
        members.append((member, data))
        at += len(member.local_header()) + len(data)
    return members, at


def _stored(name: str, data: bytes, offset: int) -> Member:
    return Member(name, zlib.crc32(data), len(data), len(data), offset)


def _content(members: _Content) -> list[bytes]:
    return [piece for member, data in members for piece in (member.local_header(), data)]


def pickled_tensor(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """Return the pickle of a contiguous tensor whose numbers are in the storage ``"0"``, in protocol 2."""
    strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    storage = (
        pickle.MARK
        + _text("storage")
        + _name("torch", _STORAGES[dtype])
        + _text("0")
        + _text("cpu")
        + _integer(math.prod(shape))
        + pickle.TUPLE
        + pickle.BINPERSID
    )
    arguments = (
        pickle.MARK
        + storage
        + _integer(0)  # of the storage, where the tensor begins
        + _integers(shape)
        + _integers(strides)
        + pickle.NEWFALSE  # requires_grad
        + _name("collections", "OrderedDict")  # backward hooks: none
        + pickle.EMPTY_TUPLE
        + pickle.REDUCE
        + pickle.TUPLE
    )
    rebuild = _name("torch._utils", "_rebuild_tensor_v2")
    return pickle.PROTO + b"\x02" + rebuild + arguments + pickle.REDUCE + pickle.STOP


def _name(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(text)) + text.encode()


def _integer(number: int) -> bytes:
    return pickle.BININT + struct.pack("<i", number)


def _integers(numbers: tuple[int, ...]) -> bytes:
    return pickle.MARK + b"".join(map(_integer, numbers)) + pickle.TUPLE

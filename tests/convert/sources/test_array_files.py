from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.lib import format as npy

from relabel_store.convert.sources.array_files import open_npy, read_header
from relabel_store.errors import LabelSourceError


@pytest.fixture
def saved(tmp_path: Path):
    """Save an array, return its path."""

    def save(array: np.ndarray, name: str = "a.npy") -> Path:
        np.save(tmp_path / name, array)
        return tmp_path / name

    return save


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<u2", "<f2", "<U3", "S2"])
def test_rows_of_any_order_and_dtype_are_those_of_the_array(saved, rng, dtype: str, order) -> None:
    array = np.asarray(rng.integers(0, 99, (7, 2, 3)).astype(dtype), order=order)
    opened = pickle.loads(pickle.dumps(open_npy(saved(array))))
    assert opened.shape == array.shape
    assert opened.dtype == array.dtype
    for rows in (range(7), range(2, 5), range(6, 7)):
        np.testing.assert_array_equal(opened.read(rows), array[rows.start : rows.stop])
    np.testing.assert_array_equal(opened.read_all(), array)


@pytest.mark.parametrize("shape", [(), (0, 3), (1,)])
def test_arrays_of_any_size_are_read(saved, shape) -> None:
    array = np.ones(shape, np.int32)
    assert open_npy(saved(array)).read_all().tolist() == array.tolist()


def test_python_objects_are_refused_and_not_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    np.save(tmp_path / "a.npy", np.array([Trap()], object), allow_pickle=True)
    with pytest.raises(
        LabelSourceError, match=r"'a\.npy': of dtype object, expected numbers.*runs whatever code"
    ):
        open_npy(tmp_path / "a.npy")
    assert not (tmp_path / "sprung").exists()


def test_records_are_refused(saved) -> None:
    with pytest.raises(LabelSourceError, match="expected numbers or text"):
        open_npy(saved(np.zeros(3, [("a", "f4")])))


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_another_length_than_its_header_says_is_refused(saved, change: int) -> None:
    path = saved(np.zeros((4, 5), np.float32))
    data = path.read_bytes()
    path.write_bytes(data[:change] if change < 0 else data + b"x")
    with pytest.raises(LabelSourceError, match=r"bytes, expected 208 for float32 of shape \(4, 5\)"):
        open_npy(path)


def headed(text: bytes) -> bytes:
    return npy.magic(1, 0) + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected a file that numpy.save wrote"),
        (b"\x93NUMPY\x09\x00", r"version \(9, 0\)"),
        (headed(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4)}\n"), "no negative lengths"),
        (headed(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2**70,)}\n"), "expected a file"),
        (headed(b"{'descr': '<f4', 'fortran_order': False, 'shape': (10**9, 10**9)}\n"), "expected a file"),
        (headed(b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d,)}\n" % 2**62), "bytes, expected"),
        (headed(b" " * 20_000), "expected a file"),
        (headed(b"(" * 300), "expected a file"),
        (headed(b"__import__('os')\n"), "expected a file"),
    ],
    ids=[
        "nothing",
        "another version",
        "negative",
        "an expression",
        "another expression",
        "huge",
        "a long header",
        "a deep header",
        "code",
    ],
)
def test_headers_that_numpy_did_not_write_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(LabelSourceError, match=message):
        open_npy(tmp_path / "a.npy")


@settings(max_examples=150)
@given(at=st.integers(0, 127), bit=st.integers(0, 7))
@example(at=6, bit=0)
def test_flipped_bits_of_a_header_end_in_our_error_or_none(at: int, bit: int) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((3, 4), np.float32))
    data = bytearray(buffer.getvalue())
    data[at] ^= 1 << bit
    try:
        header = read_header(io.BytesIO(bytes(data)), "array 'a.npy'")
    except LabelSourceError:
        return
    assert header.data_bytes >= 0


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabelSourceError, match=r"'a\.npy': No such file"):
        open_npy(tmp_path / "a.npy")


def test_a_file_that_became_shorter_is_noticed(saved) -> None:
    path = saved(np.zeros((4, 5), np.float32))
    opened = open_npy(path)
    path.write_bytes(b"")
    with pytest.raises(LabelSourceError, match=r"'a\.npy'"):
        opened.read(range(2))

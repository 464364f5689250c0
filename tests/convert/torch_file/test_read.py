from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relabel_store.convert.torch_file import Tensor, read_object, read_tensor
from relabel_store.errors import FormatError

DTYPES = [
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def rebuilt(data: bytes, change) -> bytes:
    """Return a zip file of torch's with one member changed and every checksum right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, change(info.filename, old.read(info)))
    return out.getvalue()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_numbers_of_every_dtype_are_those_of_torch(save, is_zip, dtype) -> None:
    tensor = (torch.arange(24).reshape(2, 3, 4) - 5).to(dtype)
    found = read_tensor(save(tensor, is_zip=is_zip))
    assert found.dtype == str(dtype).removeprefix("torch.")
    np.testing.assert_array_equal(found.array, as_numpy(tensor))


def test_a_tensor_that_was_permuted_before_it_was_saved_is_read_as_it_looked(save, is_zip) -> None:
    # TokenLabeling's generator stacks (rows, cols, k) and permutes.
    values, indices = torch.randn(4, 3, 5).half(), torch.randint(0, 1000, (4, 3, 5)).half()
    tensor = torch.stack([values, indices]).permute(0, 3, 1, 2)
    assert not tensor.is_contiguous()
    found = read_tensor(save(tensor, is_zip=is_zip))
    np.testing.assert_array_equal(found.array, tensor.numpy())
    assert not found.array.flags.writeable


@settings(max_examples=60)
@given(st.data())
def test_any_view_is_read_as_torch_reads_it(save, data) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    dtype = data.draw(st.sampled_from(DTYPES))
    tensor = torch.arange(int(np.prod(shape))).reshape(shape).to(dtype)
    tensor = tensor.permute(data.draw(st.permutations(range(len(shape)))))
    axis = data.draw(st.integers(0, len(shape) - 1))
    start = data.draw(st.integers(0, tensor.shape[axis] - 1))
    tensor = tensor.narrow(axis, start, tensor.shape[axis] - start)
    found = read_tensor(save(tensor, is_zip=data.draw(st.booleans())))
    np.testing.assert_array_equal(found.array, as_numpy(tensor))


def test_tensors_in_one_another_and_those_that_share_numbers_are_read(save, is_zip) -> None:
    whole = torch.arange(10.0)
    value = {"a": (whole, [whole[3:5], True]), "b": None, 3: "text", "c": -1.5, "d": OrderedDict(x=2**40)}
    found = read_object(save(value, is_zip=is_zip))
    np.testing.assert_array_equal(found["a"][0].array, whole.numpy())
    np.testing.assert_array_equal(found["a"][1][0].array, [3, 4])
    assert found["a"][1][1] is True
    assert {key: found[key] for key in found if key != "a"} == {
        "b": None,
        3: "text",
        "c": -1.5,
        "d": {"x": 2**40},
    }
    with pytest.raises(FormatError, match="a dict, expected a tensor"):
        read_tensor(save(value, is_zip=is_zip))


def test_a_file_of_a_machine_with_the_other_byte_order_is_read(save) -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    swapped = tensor.numpy().astype(">f4").tobytes()
    changes = {"archive/byteorder": b"big", "archive/data/0": swapped}
    data = rebuilt(save(tensor), lambda name, content: changes.get(name, content))
    np.testing.assert_array_equal(read_tensor(data).array, tensor.numpy())
    np.testing.assert_array_equal(torch.load(io.BytesIO(data), weights_only=True), tensor)


def test_a_file_from_before_the_byte_order_was_written_is_read(save) -> None:
    tensor, out = torch.arange(6.0), io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(save(tensor))) as old, zipfile.ZipFile(out, "w") as new:
        for name in ("archive/data.pkl", "archive/data/0", "archive/version"):
            new.writestr(name, old.read(name))
    np.testing.assert_array_equal(read_tensor(out.getvalue()).array, tensor.numpy())


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_pickle_that_runs_a_program_is_refused_and_does_not_run_it(tmp_path, save, is_zip) -> None:
    proof = tmp_path / "ran"
    if is_zip:
        payload = pickle.dumps(Hostile(proof), protocol=2)
        data = rebuilt(
            save(torch.zeros(3)), lambda name, content: payload if name.endswith(".pkl") else content
        )
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            pickle.loads(archive.read("archive/data.pkl"))
    else:
        data = save([Hostile(proof)], is_zip=False)
        torch.load(io.BytesIO(data), weights_only=False)
    assert proof.exists(), "the file is not as hostile as it should be"
    proof.unlink()
    with pytest.raises(FormatError, match=r"names '(posix|nt)\.system', which .* was not called"):
        read_object(data)
    assert not proof.exists()


def test_a_call_of_what_is_no_function_is_refused(save) -> None:
    program = b"\x80\x02ctorch\nFloatStorage\n)R."
    data = rebuilt(save(torch.zeros(3)), lambda name, old: program if name.endswith(".pkl") else old)
    with pytest.raises(FormatError, match="makes something that is no plain tensor"):
        read_object(data)


def test_every_truncation_is_an_error(save, is_zip) -> None:
    data = save(torch.arange(6, dtype=torch.float16).reshape(2, 3), is_zip=is_zip)
    for size in range(len(data)):
        with pytest.raises(FormatError, match="torch file"):
            read_object(data[:size])
    with pytest.raises(FormatError):
        read_object(data + b"\0")


def test_no_flipped_bit_does_worse_than_an_error_and_none_of_a_number_is_missed_in_a_zip(
    save, is_zip
) -> None:
    tensor = torch.arange(6, dtype=torch.float16).reshape(2, 3)
    data = save(tensor, is_zip=is_zip)
    for at in range(len(data)):
        for bit in (0, 3, 7):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            try:
                found = read_tensor(bytes(damaged))
            except FormatError:
                continue
            if is_zip:  # the older form has no checksums
                np.testing.assert_array_equal(found.array, tensor.numpy())


@settings(max_examples=150)
@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_give_an_object_or_our_error(data: bytes, has_protocol: bool) -> None:
    try:
        read_object((b"\x80\x02" if has_protocol else b"PK\x03\x04") + data)
    except FormatError:
        pass
    else:
        raise AssertionError("bytes at random are no file of torch's")


def program_of(shape, strides, offset=0, length=3, storage="FloatStorage") -> bytes:
    """Return the program of a tensor that says what it likes of its shape."""

    def integers(numbers) -> bytes:
        return b"(" + b"".join(b"\x8a\x09" + n.to_bytes(9, "little", signed=True) for n in numbers) + b"t"

    def text(value: str) -> bytes:
        return b"X" + len(value).to_bytes(4, "little") + value.encode()

    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + f"ctorch\n{storage}\n".encode()
        + text("0") + text("cpu") + integers([length])[1:-1] + b"tQ" + integers([offset])[1:-1]
        + integers(shape) + integers(strides) + b"\x89ccollections\nOrderedDict\n)RtR."
    )  # fmt: skip


@pytest.mark.parametrize(
    "claim",
    [
        {"shape": [2**60], "strides": [1]},
        {"shape": [2**60], "strides": [0]},
        {"shape": [4], "strides": [1]},
        {"shape": [2], "strides": [3]},
        {"shape": [2], "strides": [1], "offset": 2},
        {"shape": [2], "strides": [-1], "offset": 1},
        {"shape": [-1], "strides": [1]},
        {"shape": [3], "strides": [1], "offset": -1},
        {"shape": [0], "strides": [1]},
        {"shape": [3], "strides": []},
        {"shape": [1] * 20, "strides": [1] * 20},
        {"shape": [3], "strides": [1], "length": 2**62},
        {"shape": [3], "strides": [1], "length": 2},
        {"shape": [3], "strides": [1], "storage": "DoubleStorage"},
    ],
    ids=str,
)
def test_a_shape_that_leads_out_of_the_numbers_is_refused(save, claim) -> None:
    tensor = torch.arange(3.0)

    def change(name: str, content: bytes) -> bytes:
        return program_of(**claim) if name.endswith(".pkl") else content

    with pytest.raises(FormatError, match="torch file"):
        read_tensor(rebuilt(save(tensor), change))


def test_the_program_of_the_tests_above_is_sound(save) -> None:
    def change(name: str, content: bytes) -> bytes:
        return program_of([3], [1]) if name.endswith(".pkl") else content

    found = read_tensor(rebuilt(save(torch.arange(3.0)), change))
    assert isinstance(found, Tensor)
    np.testing.assert_array_equal(found.array, [0, 1, 2])


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02]q\x00h\x00a.",  # a list that holds itself
        b"\x80\x02" + b")" + b"\x85" * 5000 + b".",
        b"\x80\x02]q\x00" + b"(h\x00h\x00e" * 30 + b".",
        b"\x80\x02(" + b"N" * 200_000 + b"t.",
        b"\x80\x04N.",
        b"\x80\x02(.",
        b"\x80\x02}]Ns.",
        b"\x80\x02ctorch\nFloatStorage\n.",
        b"\x80\x02" + b"c" + b"x" * 1000 + b".",
    ],
    ids=["in itself", "deep", "many", "long", "protocol", "mark", "key", "no tensor", "name"],
)
def test_programs_that_would_fill_memory_or_never_end_are_refused(save, program) -> None:
    with pytest.raises(FormatError, match="torch file"):
        read_object(rebuilt(save(torch.zeros(3)), lambda name, old: program if ".pkl" in name else old))


@pytest.mark.parametrize("data", [b"", b"hello", b"\x1f\x8b\x08\x00", b"\x80\x02N."], ids=str)
def test_other_files_are_no_files_of_torch(data: bytes) -> None:
    with pytest.raises(FormatError, match="torch file"):
        read_object(data)

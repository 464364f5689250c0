from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from relabel_store.convert.targets.torch_file import TensorFile

shapes = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)


@given(shape=shapes, dtype=st.sampled_from([np.float16, np.float32]), seed=st.integers(0, 99))
def test_pytorch_reads_the_tensor_that_was_written(shape, dtype, seed) -> None:
    tensor = np.random.default_rng(seed).normal(size=shape).astype(dtype)
    found = torch.load(io.BytesIO(TensorFile(shape, tensor.dtype).encode(tensor)), weights_only=True)
    assert found.dtype == torch.from_numpy(tensor).dtype
    assert found.is_contiguous()
    assert not found.requires_grad
    np.testing.assert_array_equal(found.numpy(), tensor)


@pytest.fixture
def tensor(rng) -> np.ndarray:
    return rng.normal(size=(2, 5, 15, 15)).astype(np.float32)


def test_the_file_can_be_mapped_into_memory(tmp_path, tensor) -> None:
    file = TensorFile(tensor.shape, tensor.dtype).encode(tensor)
    (tmp_path / "a.pt").write_bytes(file)
    found = torch.load(tmp_path / "a.pt", mmap=True, weights_only=True)
    np.testing.assert_array_equal(found.numpy(), tensor)
    assert file.index(tensor.tobytes()) % 64 == 0


def test_the_archive_is_sound_and_says_no_time(tensor) -> None:
    file = TensorFile(tensor.shape, tensor.dtype)
    with zipfile.ZipFile(io.BytesIO(file.encode(tensor))) as archive:
        assert archive.testzip() is None
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert file.encode(tensor) == TensorFile(tensor.shape, tensor.dtype).encode(tensor.copy())


def test_a_tensor_that_is_not_contiguous_is_written_as_it_reads(tensor) -> None:
    turned = tensor.transpose(0, 1, 3, 2)
    found = torch.load(io.BytesIO(TensorFile(turned.shape, turned.dtype).encode(turned)), weights_only=True)
    np.testing.assert_array_equal(found.numpy(), turned)

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relabel_store.convert.targets.protobuf import encode_bytes, encode_example, encode_integer, varint


@pytest.mark.parametrize(
    ("number", "encoded"), [(0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (300, "ac02")]
)
def test_numbers_are_encoded_as_the_protocol_s_documentation_has_them(number: int, encoded: str) -> None:
    assert varint(number).hex() == encoded


@given(st.integers(0, 2**63 - 1))
def test_seven_bits_a_byte_add_up_to_the_number(number: int) -> None:
    encoded = varint(number)
    assert sum((byte & 0x7F) << 7 * at for at, byte in enumerate(encoded)) == number
    assert all(byte & 0x80 for byte in encoded[:-1])
    assert not encoded[-1] & 0x80


def test_an_example_by_hand() -> None:
    # message Example { features { feature { key: "a" value { bytes_list { value: "x" } } } } }, then an int64 5.
    entry_a = b"\x0a\x01a" + b"\x12\x05" + b"\x0a\x03" + b"\x0a\x01x"
    entry_n = b"\x0a\x01n" + b"\x12\x05" + b"\x1a\x03" + b"\x0a\x01\x05"
    features = b"\x0a" + bytes([len(entry_a)]) + entry_a + b"\x0a" + bytes([len(entry_n)]) + entry_n
    expected = b"\x0a" + bytes([len(features)]) + features
    assert encode_example({"a": encode_bytes(b"x"), "n": encode_integer(5)}) == expected

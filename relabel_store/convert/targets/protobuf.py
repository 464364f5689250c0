"""The little of Protocol Buffers that a `tf.train.Example` takes."""

from __future__ import annotations

from collections.abc import Mapping

_LENGTH = 2  # wire type of everything here: bytes, messages, packed integers

# Field numbers of tensorflow/core/example/{example,feature}.proto.
_EXAMPLE_FEATURES = 1
_FEATURES_FEATURE = 1
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_FEATURE_BYTES, _FEATURE_INTEGERS = 1, 3
_LIST_VALUE = 1


def encode_example(features: Mapping[str, bytes]) -> bytes:
    """Return a `tf.train.Example`, its features in the order given.

    Parameters
    ----------
    features
        As `encode_bytes` and `encode_integer` make them.
    """
    entries = b"".join(
        _field(_FEATURES_FEATURE, _field(_ENTRY_KEY, name.encode()) + _field(_ENTRY_VALUE, feature))
        for name, feature in features.items()
    )
    return _field(_EXAMPLE_FEATURES, entries)


def encode_bytes(value: bytes) -> bytes:
    """Return a feature of one string of bytes."""
    return _field(_FEATURE_BYTES, _field(_LIST_VALUE, value))


def encode_integer(value: int) -> bytes:
    """Return a feature of one int64, which is not negative."""
    return _field(_FEATURE_INTEGERS, _field(_LIST_VALUE, varint(value)))


def _field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | _LENGTH) + varint(len(content)) + content


def varint(number: int) -> bytes:
    """Return a number that is not negative, seven bits a byte, lowest first."""
    assert number >= 0
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)

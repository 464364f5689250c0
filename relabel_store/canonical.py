"""Canonical JSON: one document, one sequence of bytes, one digest."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any


def canonical_json(document: Mapping[str, Any]) -> bytes:
    """Return UTF-8 JSON with sorted keys, no spaces and a final newline.

    Raises
    ------
    ValueError
        The document holds NaN or an infinity, which JSON cannot say.
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def read_json(data: bytes) -> Any:
    """Return what JSON bytes say.

    Raises
    ------
    ValueError
        They are no JSON, hold NaN or an infinity (which Python would take), or are nested without end.
    """
    try:
        return json.loads(data, parse_constant=_refuse_number, parse_float=_read_finite)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _refuse_number(text: str) -> float:
    raise ValueError(f"the number {text}, which JSON cannot say")


def _read_finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse_number(text)


def digest_of(data: bytes) -> str:
    """Return ``"sha256:"`` and the hexadecimal SHA-256 of some bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def with_digest(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with ``digest`` added: of the canonical bytes of everything else."""
    body = {key: value for key, value in document.items() if key != "digest"}
    return {**body, "digest": digest_of(canonical_json(body))}


def has_own_digest(document: Mapping[str, Any]) -> bool:
    """Tell whether ``digest`` is that of the canonical bytes of everything else."""
    return bool(document.get("digest") == with_digest(document)["digest"])

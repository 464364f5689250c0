from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relabel_store.store.local_files import LocalFiles
from relabel_store.validate.evidence import Evidence
from relabel_store.validate.traces import check_traces


@pytest.fixture
def traces_in(valid_store: Callable[[str], Path]) -> Callable[[Any], list[str]]:
    """Return what is found of a value among the manifest's fields."""

    def find(value: Any) -> list[str]:
        evidence = Evidence(LocalFiles(valid_store("parquet")))
        assert evidence.completion is not None
        evidence.completion["more"] = value
        return [finding.problem.found for finding in check_traces(evidence)]

    return find


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("/home/alice/images", "an absolute path"),
        ("/data", "an absolute path"),
        ("cannot open '/mnt/nfs/train/a.jpg'", "an absolute path"),
        ("read from file:///tmp/x", "an absolute path"),
        (r"C:\Users\alice", "an absolute path"),
        (r"from \\server\share", "an absolute path"),
        ("~/images", "a home folder"),
        ("see ~alice/images", "a home folder"),
        ("alice@login1", "a user at a host"),
        ("copied from alice@login1.example.org:/x", "a user at a host"),
        ("https://alice:secret@example.org/x", "a URL with credentials"),
        ("s3://b/x?X-Amz-Signature=abcdef", "a URL with credentials"),
        ("https://example.org/x?token=abcdef", "a URL with credentials"),
        ("2026-01-31T12:30:05", "a time"),
        ("built 2026-01-31 12:30", "a time"),
    ],
)
def test_a_trace_is_found(traces_in: Callable[[Any], list[str]], text: str, kind: str):
    (found,) = traces_in({"deep": [text]})
    assert found.startswith(f"{kind}: ")


@pytest.mark.parametrize("text", ["?" + "token" * 60_000, "?" + "secret-" * 40_000, "?a" * 100_000], ids=len)
def test_a_long_text_is_looked_through_once(traces_in: Callable[[Any], list[str]], text: str):
    start = time.perf_counter()
    assert traces_in(text) == []
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("secret", ["https://alice:s3cr3t@example.org/x", "s3://b/x?token=s3cr3t&a=b"])
def test_a_credential_is_not_repeated(traces_in: Callable[[Any], list[str]], secret: str):
    (found,) = traces_in(secret)
    assert "s3cr3t" not in found


@pytest.mark.parametrize(
    "text",
    [
        "imagenet-1k/train",
        "hf-hub:timm/tf_efficientnet_l2.ns_jft_in1k_475",
        "hf-hub:timm/model@main",
        "package.module:make_teacher",
        "https://arxiv.org/abs/2101.05022",
        "s3://bucket/imagenet/train",
        "https://example.org/x?version=2",
        "2.4.0+cu121",
        "n01440764/photo@2x.jpg",
        "and/or, 1/8, N/A",
        "2026-01-31",
        "broken data stream when reading image file",
        "",
        "/",
    ],
)
def test_what_only_looks_like_one_is_let_pass(traces_in: Callable[[Any], list[str]], text: str):
    assert traces_in([text]) == []


@pytest.mark.parametrize("field", ["host", "hostname", "user", "pid", "created", "created_at", "timestamp"])
def test_a_field_for_one_is_found_whatever_it_holds(traces_in: Callable[[Any], list[str]], field: str):
    assert traces_in({field: 17}) == [f"a field '{field}': '17'"]


@pytest.mark.parametrize("field", ["citation", "licence", "classes"])
def test_what_people_wrote_for_people_is_let_pass(traces_in: Callable[[Any], list[str]], field: str):
    assert traces_in({field: ["/m/01g317", "alice@example.org"]}) == []

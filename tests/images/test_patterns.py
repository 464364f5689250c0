from __future__ import annotations

from pathlib import Path

import pytest

from relabel_store.errors import ImageSourceError
from relabel_store.images.patterns import expand, is_pattern


@pytest.mark.parametrize(
    ("pattern", "files"),
    [
        ("a-{0..2}.tar", ["a-0.tar", "a-1.tar", "a-2.tar"]),
        ("a-{008..011}.tar", ["a-008.tar", "a-009.tar", "a-010.tar", "a-011.tar"]),
        ("a-{8..010}.tar", ["a-008.tar", "a-009.tar", "a-010.tar"]),
        ("a-{0..0}.tar", ["a-0.tar"]),
        ("a-{2..0}.tar", ["a-2.tar", "a-1.tar", "a-0.tar"]),
        ("{x,y}-{0..1}.tar", ["x-0.tar", "x-1.tar", "y-0.tar", "y-1.tar"]),
        ("s3://bucket/{b,a}/x.tar", ["s3://bucket/b/x.tar", "s3://bucket/a/x.tar"]),
        ("https://host/a-{0..1}.tar?key=x", ["https://host/a-0.tar?key=x", "https://host/a-1.tar?key=x"]),
    ],
)
def test_braces_mean_what_they_mean_to_a_shell(pattern: str, files: list[str]):
    assert is_pattern(pattern)
    assert expand(pattern) == files


@pytest.mark.parametrize("location", ["a.tar", "a{b}.tar", "s3://bucket/a?versionId=1", "a{}.tar"])
def test_other_names_are_no_patterns(location: str):
    assert not is_pattern(location)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a-{0..x}.tar", r"\{0..x\}, expected a range"),
        ("a-{0..99999999}.tar", "more than 1,000,000 files"),
        ("a-{0..9999}-{0..9999}.tar", "more than 1,000,000 files"),
        ("{a,a}.tar", "means 'a.tar' twice"),
        ("nothing-here-*.tar", "no file of such a name"),
    ],
)
def test_a_pattern_that_means_nothing_is_refused(pattern: str, message: str):
    with pytest.raises(ImageSourceError, match=message):
        expand(pattern)


def test_stars_are_sorted(tmp_path: Path):
    for name in ("b.tar", "a.tar", "c.txt"):
        (tmp_path / name).touch()
    assert expand(f"{tmp_path}/*.tar") == [f"{tmp_path}/a.tar", f"{tmp_path}/b.tar"]
    assert expand(f"{tmp_path}/{{b,a}}.*") == [f"{tmp_path}/b.tar", f"{tmp_path}/a.tar"]

from __future__ import annotations

import pickle
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relabel_store.errors import ImageSourceError
from relabel_store.images.names import (
    OptionalTexts,
    Texts,
    drop_shared_folders,
    plain_path,
    require_unique,
)

PARTS = st.text(st.sampled_from("abé😀"), min_size=1, max_size=2)
PATHS = st.lists(st.lists(PARTS, min_size=1, max_size=4).map("/".join), min_size=1, max_size=8)


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"]))))
def test_texts_are_the_strings_that_they_were_made_of(strings: list[str]):
    texts = Texts.of(iter(strings))
    assert list(texts) == strings == [texts[at] for at in range(len(texts))] == texts[:]
    assert list(pickle.loads(pickle.dumps(texts))) == strings


@given(st.lists(st.none() | PARTS))
def test_class_names_are_the_strings_that_they_were_made_of(strings: list[str | None]):
    names = OptionalTexts.of(iter(strings))
    assert list(names) == strings == [names[at] for at in range(len(names))] == names[:]


def test_more_names_than_a_piece_holds_are_one_column():
    names = OptionalTexts.of(f"{row // 40_000}" for row in range(150_000))
    assert [names[row] for row in (0, 70_000, 149_999)] == ["0", "1", "3"]
    assert len(Texts.of("x" for _ in range(150_000))) == 150_000


@given(PATHS)
def test_shared_folders_are_dropped_as_long_as_one_is_left(paths: list[str]):
    found, dropped = drop_shared_folders(Texts.of(paths))
    assert [dropped + path for path in found] == paths
    parts = [PurePosixPath(path).parts for path in found]
    is_shared = len({part[0] for part in parts}) == 1
    assert not (is_shared and min(map(len, parts)) > 2)
    assert not dropped or min(map(len, parts)) >= 2


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["home/alice/a.jpg", "home/alice/b.jpg"], "home/alice/"),
        (["x/Users/alice/a.jpg", "x/Users/alice/b.jpg"], "x/Users/alice/"),
        (["home/alice/cat/a.jpg", "home/alice/dog/b.jpg"], "home/alice/"),
        (["home/alice/a.jpg", "home/bob/b.jpg"], "home/"),
        (["house/alice/a.jpg", "house/alice/b.jpg"], "house/"),
    ],
)
def test_the_name_of_a_home_is_dropped(paths: list[str], expected: str):
    found, dropped = drop_shared_folders(Texts.of(paths))
    assert dropped == expected
    assert [dropped + path for path in found] == paths


@pytest.mark.parametrize("path", ["", ".", "/", "..", "a/..", "../a", "a/../b", "./..//x"])
def test_paths_that_are_none_are_refused(path: str):
    with pytest.raises(ImageSourceError, match="stays below the root"):
        plain_path(path, "x")


@pytest.mark.parametrize(
    ("path", "plain"),
    [("a/b", "a/b"), ("./a//b/.", "a/b"), ("/a", "a"), ("..a/b..", "..a/b.."), (".a/...", ".a/...")],
)
def test_plain_paths_have_parts_only(path: str, plain: str):
    assert plain_path(path, "x") == plain


def test_pairs_with_one_id_are_counted():
    with pytest.raises(ImageSourceError, match=r"'p0' and 'p2' have one sample id, 'x' \(and 2 more pairs\)"):
        require_unique("s", Texts.of(["x", "y", "x", "x", "y"]), [f"p{row}" for row in range(5)])

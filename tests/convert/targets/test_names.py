from __future__ import annotations

import pytest

from relabel_store.convert.targets.names import case_notes, require_file_names, require_no_nul
from relabel_store.errors import OptionError


@pytest.mark.parametrize(
    ("sample_id", "problem"),
    [
        ("../a", "is absolute or has"),
        ("a/../../b", "is absolute or has"),
        ("/etc/a", "is absolute or has"),
        ("a//b", "is absolute or has"),
        ("a/.", "is absolute or has"),
        ("", "is absolute or has"),
        ("a\0b", "holds NUL"),
        ("a\\b", "holds a backslash"),
        ("a/" + "ä" * 127, "makes a name of 257 bytes"),
    ],
    ids=["up", "up from within", "absolute", "empty part", "itself", "empty", "NUL", "backslash", "too long"],
)
def test_an_id_that_can_be_no_file_name_is_refused(sample_id: str, problem: str) -> None:
    with pytest.raises(OptionError, match=problem):
        require_file_names(["good", sample_id], ".pt", "relabel")


def test_names_that_are_odd_and_possible_are_taken() -> None:
    require_file_names(["a/..b", "a/b.", "ä/ö ü", ".hidden", "a/" + "x" * 252], ".pt", "relabel")


def test_a_file_that_would_be_a_folder_too_is_refused() -> None:
    with pytest.raises(OptionError, match=r"'a\.pt' would be the file of a sample and the folder of others"):
        require_file_names(["a", "a.pt/b"], ".pt", "relabel")


def test_names_that_only_case_tells_apart_are_counted() -> None:
    assert case_notes(["a/b", "a/c"]) == []
    (note,) = case_notes(["a/b", "A/b", "a/B", "c"])
    assert note.startswith("2 sample ids differ from others in case only, such as 'a/b' and 'A/b'")


def test_nul_is_refused_where_text_is_padded_with_it() -> None:
    require_no_nul(["a", "b"], "npz")
    with pytest.raises(OptionError, match="holds NUL, with which this form pads text"):
        require_no_nul(["a", "b\0"], "npz")

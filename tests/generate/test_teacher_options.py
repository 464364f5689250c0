from __future__ import annotations

import pytest

from relabel_store.errors import OptionError
from relabel_store.generate.teacher_options import TeacherOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "frozen"}, "head: 'frozen', expected replay or linearized"),
        ({"input_size": (0, 3)}, "input_size"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, object], message: str):
    with pytest.raises(OptionError, match=message):
        TeacherOptions(**options)

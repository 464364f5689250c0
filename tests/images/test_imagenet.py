from __future__ import annotations

import doctest

from relabel_store.images import imagenet


def test_the_examples_of_names_hold():
    assert doctest.testmod(imagenet).failed == 0

from __future__ import annotations

import json
from collections.abc import Callable

import timm
from click.testing import Result

from relabel_store.generate.aliases import ALIASES
from relabel_store.schema import schema_errors

Run = Callable[..., Result]


def test_aliases_are_listed_with_what_they_give(run: Run):
    result = run("teachers")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["NAME", "TIMM", "INPUT", "GRID", "DENSE", "MAP", "LICENCE", "WEIGHTS"]
    assert [line.split()[0] for line in lines[1:]] == list(ALIASES)
    assert lines[1].split()[:6] == [
        "efficientnet_l2",
        "tf_efficientnet_l2.ns_jft_in1k_475",
        "475",
        "px",
        "15x15",
        "exact",
    ]


def test_a_pattern_finds_timms_teachers_too(run: Run):
    names = [
        entry["name"]
        for entry in json.loads(run("teachers", "*efficientnet_b1*", "--json").stdout)["teachers"]
    ]
    assert names[0] == "efficientnet_b1"
    assert "tf_efficientnet_b1.ns_jft_in1k" in names
    assert all("efficientnet_b1" in name for name in names)
    assert set(names[1:]) <= set(timm.list_pretrained())


def test_part_of_a_name_is_a_pattern(run: Run):
    assert "resnext101_32x48d" in run("teachers", "32x48").stdout


def test_misleading_names_are_not_offered(run: Run):
    assert "ig_resnext101_32x48d" not in run("teachers", "ig_resnext101*").stdout


def test_nothing_found_is_said_and_exits_with_1(run: Run):
    result = run("teachers", "qqqq")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "'qqqq'" in result.stderr


def test_json_follows_its_schema(run: Run):
    for arguments in ([], ["resnet*"]):
        document = json.loads(run("teachers", *arguments, "--json").stdout)
        assert list(schema_errors(document, "teachers-v1")) == []
        assert document["teachers"]

"""The rule that a store holds no trace of the machine, the moment or the person that made it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from relabel_store import spec
from relabel_store.validate.documents import json_object
from relabel_store.validate.evidence import Evidence
from relabel_store.validate.finding import Place, Problem
from relabel_store.validate.rule import check

_TRACES = {
    # `+` after `?`: what was matched is kept, so that a long text of such words takes no longer than it is long.
    "a URL with credentials": re.compile(
        r"://[^/\s@]*@|[?&](?=[\w-]*(?:token|signature|secret|passw|key))[\w-]*+=", re.I
    ),
    # From the first character on, or at least two folders deep and not the path of a URL.
    "an absolute path": re.compile(
        r"\A/[\w.]|(?<![\w./:~-])(?:/[\w.@+-]+){2,}|(?<!\w)[A-Za-z]:\\[\w.]|(?<!\\)\\\\\w+\\\w|(?<!\w)file://"
    ),
    "a home folder": re.compile(r"(?<![\w/])~[\w-]*/"),
    "a user at a host": re.compile(r"(?<![\w./@+-])[A-Za-z_][\w.-]*@[A-Za-z0-9][\w.-]*"),
    "a time": re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d"),
}
# Fields by whose name alone they are none of a finished store.
_FIELDS = re.compile(r"host(name)?|user(name)?|pid|cwd|created(_at)?|timestamp|time|date|started|finished")
# What people wrote for people, such as the address in a citation, or called their classes: OpenImages has "/m/01g317".
_FREE_TEXT = ("citation", "licence", "classes")


@check("RS116", "F62")
def check_traces(evidence: Evidence) -> Iterator[Problem]:
    """No document of a finished store holds a time, a host, a user, a process, an absolute path or a credential."""
    if not evidence.is_finished:
        return
    for file, document in _documents(evidence):
        for field, trace, text in _find(document, ""):
            yield Problem(
                Place(file=file, field=field),
                f"{trace}: {_shown(text)}",
                "nothing of where, when or by whom the store was made",
                "build or convert it again before anybody else gets it",
            )


def _documents(evidence: Evidence) -> Iterator[tuple[str, Any]]:
    """Yield the JSON documents of a store, each once: part records are in ``complete.json`` too."""
    if evidence.completion is not None:
        yield spec.COMPLETE_FILE, evidence.completion
    for name in sorted(evidence.listed or ()):
        if (
            name.endswith(".json")
            and not name.startswith(f"{spec.JOURNAL_DIR}/")
            and evidence.is_as_recorded(name)
        ):
            yield name, json_object(evidence.read(name) or b"")


def _find(value: Any, path: str) -> Iterator[tuple[str, str, str]]:
    """Yield path, kind and text of each trace in a JSON value."""
    if isinstance(value, dict):
        for name, item in value.items():
            inner = f"{path}.{name}" if path else str(name)
            if _FIELDS.fullmatch(str(name)) and not isinstance(item, dict):
                yield inner, f"a field {name!r}", str(item)
            elif name not in _FREE_TEXT:
                yield from _find(item, inner)
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _find(item, f"{path}[{position}]")
    elif isinstance(value, str):
        trace = next((kind for kind, pattern in _TRACES.items() if pattern.search(value)), None)
        if trace is not None:
            yield path, trace, value


def _shown(text: str) -> str:
    """Return a trace as a message may repeat it: no more of a credential than that it is one."""
    hidden = re.sub(r"://[^/\s@]*@", "://…@", text)
    hidden = re.sub(r"([?&][\w-]*=)[^&\s]*", r"\1…", hidden)
    return repr(hidden[:120])

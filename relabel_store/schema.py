"""The JSON Schemas of the format and of the commands' output."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from itertools import islice
from typing import Any

_MOST_ERRORS = 1000  # each takes some kilobytes, and a small document can hold millions
SCHEMAS_PACKAGE = "relabel_store.schemas"


def load_schema(name: str) -> dict[str, Any]:
    """Return a JSON Schema by name, e.g. ``"manifest-v1"``.

    Raises
    ------
    KeyError
        No schema of this name is shipped.
    """
    resource = resources.files(SCHEMAS_PACKAGE) / f"{name}.schema.json"
    if not resource.is_file():
        raise KeyError(f"schema {name!r}: not shipped")
    return load_document(resource.name)


def load_document(name: str) -> dict[str, Any]:
    """Return a JSON document that is shipped beside the schemas, by the name of its file."""
    text = (resources.files(SCHEMAS_PACKAGE) / name).read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


@cache
def _validator(name: str) -> Any:
    # jsonschema takes 0.1 s to import; a store that is only opened for training pays it once here.
    from jsonschema import Draft202012Validator

    schema = load_schema(name)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def schema_errors(document: Mapping[str, Any], name: str) -> Iterator[str]:
    """Yield one line for each place where a document breaks a schema, in document order; the first thousand."""
    errors = islice(_validator(name).iter_errors(document), _MOST_ERRORS)
    for error in sorted(errors, key=lambda error: [str(step) for step in error.absolute_path]):
        yield f"{error.json_path}: {error.message[:300]}"

"""The card of a Hugging Face dataset: what it holds in YAML for programs, and in words for people."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from relabel_store import spec
from relabel_store.convert.targets.provenance import MANIFEST_FILE
from relabel_store.manifest import AbsentRule, Manifest

LABEL = "label"

# The number of examples below which a category of sizes ends, as the hub names them.
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
)
_LARGE = "n>10M"

_UNPRINTABLE = re.compile("[\x7f-\x9f\ufeff\ufffe\uffff]")  # JSON lets them stand, YAML does not


def class_names(manifest: Manifest) -> tuple[str, ...] | None:
    """Return a name for each class that no other has, for people if there is one; None where there is none."""
    for names in (manifest.classes.names, manifest.classes.ids):
        if names is not None and len(set(names)) == len(names) and all(names):
            return names
    return None


def _features(schema: pa.Schema, manifest: Manifest) -> list[dict[str, Any]]:
    """Return the features of a table as the card says them."""
    features: list[dict[str, Any]] = []
    for field in schema:
        if field.name == LABEL:
            names = {str(index): name for index, name in enumerate(class_names(manifest) or ())}
            feature: dict[str, Any] = {"dtype": {"class_label": {"names": names}}}
        elif pa.types.is_fixed_size_list(field.type):
            # Later releases of `datasets` say "list", and understand this as well.
            feature = {"sequence": _type_name(field.type.value_type), "length": field.type.list_size}
        else:
            feature = {"dtype": _type_name(field.type)}
        features.append({"name": field.name, **feature})
    return features


def _type_name(kind: pa.DataType) -> str:
    return {"float": "float32"}.get(str(kind), str(kind))


def dataset_card(
    manifest: Manifest, schema: pa.Schema, *, examples: int, num_bytes: int, download_bytes: int
) -> str:
    """Return ``README.md``.

    Parameters
    ----------
    schema
        Of the Parquet files.
    examples
        Rows of all files.
    num_bytes, download_bytes
        In memory, and on disk.
    """
    split = {"name": "train", "num_bytes": num_bytes, "num_examples": examples}
    head: dict[str, Any] = {
        "pretty_name": manifest.name,
        **_licence(manifest),
        "task_categories": ["image-classification"],
        "tags": ["knowledge-distillation", "soft-labels", "label-maps", "relabel"],
        "size_categories": [next((name for limit, name in _SIZES if examples < limit), _LARGE)],
        "dataset_info": {
            "features": _features(schema, manifest),
            "splits": [split],
            "download_size": download_bytes,
            "dataset_size": num_bytes,
        },
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
    }
    lines = [f"{name}: {_yaml(value)}" for name, value in head.items()]
    return "\n".join(["---", *lines, "---", "", *_words(manifest, schema, examples), ""])


def _licence(manifest: Manifest) -> dict[str, str]:
    if manifest.licence is None:
        return {}
    name = manifest.licence.lower()
    if re.fullmatch(r"[a-z0-9.-]+", name):  # as the hub's own are
        return {"license": name}
    return {"license": "other", "license_name": manifest.licence}


def _yaml(value: object) -> str:
    """Return a value in JSON, which is YAML too."""
    text = json.dumps(value, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _words(manifest: Manifest, schema: pa.Schema, examples: int) -> Sequence[str]:
    label_map = manifest.label_map
    n_rows, n_cols = label_map.grid
    shape = f"{label_map.k}, {n_rows}, {n_cols}"
    citation = ["", "## Citation", "", *(f"- {entry}" for entry in manifest.citation)]
    return [
        f"# {' '.join(manifest.name.split())}",
        "",
        f"Label maps (ReLabel, [arXiv:2101.05022](https://arxiv.org/abs/2101.05022)) of {examples:,} images:",
        f"the {label_map.k} best of {label_map.num_classes:,} classes in each cell of a grid of {n_rows} x {n_cols}",
        f"over the image, by the teacher `{manifest.teacher.name}`. The images are not here; `sample_id` is their path",
        "without its last suffix.",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        'labels = load_dataset("this folder or repository", split="train").with_format("numpy")',
        f'indices = labels[0]["indices"].reshape({shape})  # (k, row, col), row 0 on top',
        f'values = labels[0]["values"].reshape({shape})  # {label_map.values}, falling along k',
        "```",
        "",
        f"Columns: {', '.join(f'`{column}`' for column in schema.names)}.",
        _absent(manifest),
        f"Images without a label are left out. `{MANIFEST_FILE}` says how the maps were made.",
        *(citation if manifest.citation else ()),
    ]


def _absent(manifest: Manifest) -> str:
    label_map = manifest.label_map
    if label_map.absent is AbsentRule.ZERO:
        return "A class that is not kept counts as logit 0."
    left = f"{label_map.num_classes} - {label_map.k}"
    return f"`{spec.REST}` is the log-sum-exp of the classes not kept; each of them counts as `rest - log({left})`."

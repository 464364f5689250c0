"""The classes of a teacher, in order: given in a file, known to timm, or unknown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relabel_store.class_names import read_class_names
from relabel_store.manifest import Classes


def find_classes(
    config: Mapping[str, Any], class_names: Path | None, num_classes: int, *, is_named: bool
) -> Classes:
    """Return the classes of a model of timm.

    Parameters
    ----------
    config
        The model's ``pretrained_cfg``.
    class_names
        A file that says them, for `read_class_names`.
    is_named
        Whether the weights are those that the configuration speaks of.
    """
    if class_names is not None:
        return Classes.of(None, read_class_names(class_names, num_classes), "given")
    listed = config.get("label_names")
    if listed is not None and len(listed) == num_classes:
        described = config.get("label_descriptions") or {}
        names = [described.get(label, label) for label in listed] if described else None
        return Classes.of(list(listed), names, "the teacher's own configuration")
    return (
        _imagenet_classes(config.get("tag") or "", num_classes) if is_named else Classes.of(None, None, None)
    )


def _imagenet_classes(tag: str, num_classes: int) -> Classes:
    """Return the class list of timm's ImageNet variants; unknown unless tag and class count agree."""
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": num_classes, "tag": tag})
    if subset is None or not re.search(r"in\d+k", tag):
        return Classes.of(None, None, None)
    info = ImageNetInfo(subset)
    rows = range(num_classes)
    return Classes.of(
        [info.index_to_label_name(row) for row in rows],
        [info.index_to_description(row) for row in rows],
        f"timm {subset}",
    )

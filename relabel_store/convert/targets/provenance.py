"""The manifest beside labels in a layout of others: where they come from, and what their numbers mean."""

from __future__ import annotations

from pathlib import Path

from relabel_store.canonical import canonical_json
from relabel_store.manifest import Manifest, Resize
from relabel_store.store.local_files import write_file

MANIFEST_FILE = "relabel-store.json"


def manifest_text(manifest: Manifest) -> str:
    """Return a manifest as the text of its JSON."""
    return canonical_json(manifest.to_dict()).decode()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest as a file of a folder."""
    write_file(folder / MANIFEST_FILE, manifest_text(manifest).encode())


def meaning_notes(manifest: Manifest) -> list[str]:
    """Return what readers get wrong who take labels for logits over whole images."""
    notes = []
    if manifest.label_map.values != "logits":
        notes.append(f"the values are {manifest.label_map.values}; published readers take them for logits")
    if manifest.geometry.resize is not Resize.SQUASH:
        notes.append(
            f"the geometry of the maps is {manifest.geometry.resize.value!r}; published readers take them to cover "
            "whole images"
        )
    return notes

"""How a build ended."""

from __future__ import annotations

from dataclasses import dataclass

from relabel_store.generate.forecast import Forecast
from relabel_store.generate.profile import Profile
from relabel_store.manifest import Manifest
from relabel_store.store.running import FailedPart


@dataclass(frozen=True)
class BuildReport:
    """How a build ended.

    Parameters
    ----------
    location
        Path or URL of the store.
    is_complete
        Whether the store is finished; a share may leave parts to the others.
    labelled
        Samples labelled by this run.
    bad_images
        Path and reason of every image of the store that has no label.
    profile
        Where the time of this run went, or of the batches of a dry run; None where nothing was left to label, or others
        did it.
    failed_parts
        The parts that a cluster gave up, in order, why, and after how many attempts.
    forecast
        What the build will take, of a dry run that found something left to label.
    """

    location: str
    manifest: Manifest
    is_complete: bool
    labelled: int
    parts_left: int
    bad_images: tuple[tuple[str, str], ...]
    profile: Profile | None = None
    failed_parts: tuple[FailedPart, ...] = ()
    forecast: Forecast | None = None

"""A finished store whose ``complete.json`` is lost or damaged: is everything else what it must be?"""

from __future__ import annotations

from relabel_store import spec
from relabel_store.errors import DamagedFileError
from relabel_store.manifest import Manifest
from relabel_store.store.encodings import encoding_of
from relabel_store.store.files import StoreFiles
from relabel_store.validate.run import validate_store


def require_nothing_else_wrong(files: StoreFiles, manifest: Manifest) -> None:
    """Check the manifest and the sample table, whose digests only ``complete.json`` holds, by what they say.

    What the journal vouches for, the files of parts, and what is made from the manifest may be damaged: that can be
    told and mended.

    Raises
    ------
    DamagedFileError
        They contradict each other or the labels.
    """
    encoding = encoding_of(manifest)
    vouchers = {encoding.manifest_file, encoding.samples_file}
    report = validate_store(files)
    wrong = [
        finding.message
        for group in report.groups
        for finding in group.findings
        if group.is_error and finding.problem.place.file in vouchers
    ]
    if wrong:
        raise DamagedFileError(
            f"store file {spec.COMPLETE_FILE!r}: lost or damaged, and without it nothing tells what is right where the "
            f"store contradicts itself: {wrong[0]}; restore both from a copy"
        )

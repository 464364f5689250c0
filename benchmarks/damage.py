"""Every damage to a small store of each encoding: what readers return, and whether validate finds it.

    python benchmarks/damage.py [--stride 7] [--per-kind 0] [--encodings zarr,parquet,packed]

For each kind of damage: how many were tried, of how many `validate_store` says something that it does not say of the
sound store, how many made a reader raise an error of ours (the others hit what no reader needs), and how many labels or
samples came back that are not those of the sound store.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from machine import describe_machine

from relabel_store import spec
from relabel_store.errors import StoreNotFoundError, UnknownEncodingError, UnsupportedVersionError
from relabel_store.manifest import AbsentRule
from relabel_store.store.encodings import ENCODINGS
from relabel_store.testing import make_manifest, make_store
from relabel_store.testing.damage import Damage, every_damage
from relabel_store.testing.probe import Truth, ask_every_reader
from relabel_store.validate.report import Report
from relabel_store.validate.run import validate_store


@dataclass
class Count:
    """What became of the damages of one kind."""

    tried: int = 0
    detected: int = 0
    raised: int = 0
    wrong: int = 0
    leaked: int = 0


def main() -> None:
    """Print a table by kind of damage, and one of what was forged."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--stride", type=int, default=7, help="flip every n-th byte, cut at every n-th length"
    )
    parser.add_argument(
        "--per-kind", type=int, default=0, help="at most about so many of each kind; 0 is all"
    )
    parser.add_argument("--encodings", default=",".join(ENCODINGS))
    arguments = parser.parse_args()
    started = time.process_time()
    counts: dict[tuple[bool, str], Count] = {}
    work = Path(tempfile.mkdtemp(prefix="relabel-store-damage-", dir=_memory_disk()))
    for encoding in arguments.encodings.split(","):
        for state in ("finished", "unfinished"):
            damage_store(work, encoding, state, counts, arguments.stride, arguments.per_kind)
    shutil.rmtree(work)
    print(describe_machine())
    print(f"{time.process_time() - started:.0f} s of processor time\n")
    for is_forged, title in ((False, "damage"), (True, "forged: every digest put right")):
        print(f"| {title} | tried | found by validate | a reader raised | wrong labels returned |")
        print("| --- | --- | --- | --- | --- |")
        for (forged, kind), count in counts.items():
            if forged == is_forged:
                print(f"| {kind} | {count.tried} | {count.detected} | {count.raised} | {count.wrong} |")
        print()
    print(f"errors that are not ours: {sum(count.leaked for count in counts.values())}")


def damage_store(
    work: Path,
    encoding: str,
    state: str,
    counts: dict[tuple[bool, str], Count],
    stride: int,
    per_kind: int,
) -> None:
    """Damage one store in every way."""
    manifest = make_manifest(grid=(2, 3), absent=AbsentRule.REST, encoding=encoding)
    parts = None if state == "finished" else [0]
    for name, seed in (("sound", 0), ("other", 1)):
        shutil.rmtree(work / name, ignore_errors=True)
        make_store(work / name, np.random.default_rng(seed), manifest, bad_images={2: "cut off"}, parts=parts)
    truth, report = Truth.of(work / "sound"), validate_store(work / "sound")
    for damage in chosen(list(every_damage(work / "sound", work / "other", stride=stride)), per_kind):
        if all(name.startswith(f"{spec.RUNNING_DIR}/") for name in damage.files):
            continue  # notes of a build in progress, which are no part of a store
        for name in ("store", "cache"):
            shutil.rmtree(work / name, ignore_errors=True)
        shutil.copytree(work / "sound", work / "store")
        damage.do(work / "store")
        count = counts.setdefault((damage.is_forged, damage.kind), Count())
        answers = ask_every_reader(work / "store", work / "cache", truth)
        count.tried += 1
        is_detected = says_more(work / "store", report)
        count.detected += is_detected
        count.raised += any("Unfinished" not in error for error in answers.errors)
        count.wrong += len(answers.wrong)
        count.leaked += len(answers.leaked)
        if not damage.is_forged and (answers.wrong or answers.leaked or not is_detected):
            print(f"MISSED {encoding} {state} {damage}: {answers.wrong[:1]} {answers.leaked[:1]}", flush=True)


def chosen(damages: list[Damage], per_kind: int) -> list[Damage]:
    """Return all damages, or some of each kind, evenly spread."""
    by_kind: dict[str, list[Damage]] = {}
    for damage in damages:
        by_kind.setdefault(damage.kind, []).append(damage)
    step = {kind: max(len(found) // per_kind, 1) if per_kind else 1 for kind, found in by_kind.items()}
    return [damage for kind, found in by_kind.items() for damage in found[:: step[kind]]]


def says_more(path: Path, sound: Report) -> bool:
    """Tell whether validate says something of a store that it does not say of the sound one."""
    try:
        report = validate_store(path)
    except (StoreNotFoundError, UnknownEncodingError, UnsupportedVersionError):
        return True
    return report.has_errors() and report.groups != sound.groups


def _memory_disk() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


if __name__ == "__main__":
    os.fsync = lambda _: None  # type: ignore[assignment]  # these stores need not survive a power cut
    main()

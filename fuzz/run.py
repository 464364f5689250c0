"""Runs every target of the harness for a while and says how often each was tried.

    python fuzz/run.py [--seconds 60] [TARGET ...]

New inputs that reach new code are kept in ``build/fuzz``; what fails is written to ``build/fuzz/failures``.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
KEPT = HERE.parent / "build" / "fuzz"
TARGETS = (
    "manifest",
    "record",
    "completion",
    "samples",
    "image",
    "zarr-shard",
    "zarr-array",
    "parquet-part",
    "packed-part",
)


def main() -> None:
    """Print a line a target; exit with 1 where one failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="of each target")
    arguments = parser.parse_args()
    failed = [target for target in arguments.targets or TARGETS if not fuzz(target, arguments.seconds)]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def fuzz(target: str, seconds: int) -> bool:
    """Run a target; tell whether it held."""
    corpus, failures = KEPT / target, KEPT / "failures"
    for folder in (corpus, failures):
        folder.mkdir(parents=True, exist_ok=True)
    seeds = HERE / "corpus" / target
    command = [sys.executable, "-P", str(HERE / "harness.py"), target]
    command += [f"-max_total_time={seconds}", "-rss_limit_mb=2048", "-timeout=10", "-print_final_stats=1"]
    command += [
        f"-artifact_prefix={failures}/{target}-",
        str(corpus),
        *([str(seeds)] if seeds.is_dir() else []),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    tried = re.search(r"stat::number_of_executed_units:\s*(\d+)", output)
    edges = re.findall(r"cov: (\d+)", output)
    counts = f"{tried[1] if tried else '?':>10s} executions, {edges[-1] if edges else '?'} edges"
    print(f"{target:14s} {seconds:5d} s {counts}: {'FAILED' if done.returncode else 'held'}", flush=True)
    if done.returncode:
        print(output[-6000:], flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    main()

"""kill -9 at random moments of a build, each build finished by a second run: are the bytes the same?

    python benchmarks/kill.py photos/ [--kills 20] [--shard-rows 8] [--input-size 128]

Each round starts `relabel-store build` as a process of its own, kills it at a random moment of the time that an
undisturbed build takes, runs the same command again and compares every file with the undisturbed store.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import describe_machine


def main() -> None:
    """Print one line a round and the sum."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--shard-rows", type=int, default=8)
    parser.add_argument("--input-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="relabel-store-kill-"))
    command = [sys.executable, "-P", "-m", "relabel_store.cli", "build", "--teacher", "efficientnet_lite0"]
    command += ["--images", arguments.images, "--input-size", str(arguments.input_size), "--device", "cpu"]
    command += ["--shard-rows", str(arguments.shard_rows), "--name", "kill", "--out"]

    started = time.perf_counter()
    subprocess.run([*command, str(work / "whole")], check=True, stdout=subprocess.DEVNULL)
    whole_s = time.perf_counter() - started
    expected = contents(work / "whole")
    print(describe_machine())
    print(f"undisturbed build: {whole_s:.1f} s, {len(expected)} files")

    rng = random.Random(arguments.seed)
    same = 0
    for kill in range(arguments.kills):
        out = work / f"killed-{kill}"
        moment_s = rng.uniform(0, whole_s)
        found = kill_after([*command, str(out)], moment_s)
        finished = len(list(out.glob("journal/part-*.json"))) if out.exists() else 0
        leftovers = len(list(out.rglob("*.partial"))) if out.exists() else 0
        subprocess.run([*command, str(out)], check=True, stdout=subprocess.DEVNULL)
        is_same = contents(out) == expected
        same += is_same
        print(
            f"kill {kill:2d} after {moment_s:5.1f} s: {found}, {finished} parts finished, {leftovers} half-written "
            f"files; after the second run {'the same bytes' if is_same else 'OTHER BYTES'}",
            flush=True,
        )
        shutil.rmtree(out)
    print(f"identical {same} of {arguments.kills}")
    shutil.rmtree(work)
    sys.exit(same != arguments.kills)


def kill_after(command: list[str], moment_s: float) -> str:
    """Start a command, kill it with SIGKILL after some time, and say whether it was still running."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            process.wait(timeout=moment_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return "killed"
    return "already done"


def contents(store: Path) -> dict[str, str]:
    """Return the digest of every file below a store."""
    return {
        path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }


if __name__ == "__main__":
    main()

"""What scheduling costs on a Ray cluster of this machine: parts of a second against the ideal.

    python benchmarks/engines.py [--parts 300] [--workers 8]

The parts only sleep, so that what is measured is the engine. *Cold* begins with a cluster without worker processes,
*warm* runs again on the same one. Then parts that do nothing: how many can be begun in a second.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from machine import describe_machine

from relabel_store.generate.engines.ray import RayEngine, RaySettings, ray_cluster


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", type=int, default=300)
    parser.add_argument("--workers", type=int, default=8)
    arguments = parser.parse_args()
    print(describe_machine())
    ideal_s = -(-arguments.parts // arguments.workers) * 1.0
    with ray_cluster(RaySettings(workers=arguments.workers)) as engine:
        import ray

        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        print(f"Ray {ray.__version__}, {arguments.parts} parts of 1 s, {arguments.workers} workers")
        print("| | seconds | ideal | efficiency |")
        print("| --- | ---: | ---: | ---: |")
        for name in ("cold", "warm", "warm again"):
            taken_s = seconds(engine, sleep, arguments.parts)
            print(f"| {name} | {taken_s:.1f} | {ideal_s:.1f} | {ideal_s / taken_s:.1%} |")
        taken_s = seconds(engine, do_nothing, 2000)
        print(f"parts that do nothing: {2000 / taken_s:,.0f} a second")


def seconds(engine: RayEngine, work: Callable[[int], int], parts: int) -> float:
    """Return how long an engine takes for some parts."""
    started = time.perf_counter()
    done = sorted(engine.run(work, range(parts)))
    assert done == list(range(parts))
    return time.perf_counter() - started


def sleep(part: int) -> int:
    """Take a second."""
    time.sleep(1)
    return part


def do_nothing(part: int) -> int:
    """Take no time."""
    return part


if __name__ == "__main__":
    main()

"""Live many years, on all cores; a seed that finds something is printed."""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from simulator.checks import check


def main() -> int:
    """Say what is wrong in some worlds; 1 if anything is."""
    parser = argparse.ArgumentParser(prog="simulator", description=__doc__)
    parser.add_argument("--years", type=int, default=20, help="server-years, each a seed")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="replay this one alone")
    arguments = parser.parse_args()
    first = arguments.first if arguments.seed is None else arguments.seed
    seeds = range(first, first + (arguments.years if arguments.seed is None else 1))
    began = time.monotonic()
    bad = 0
    with ProcessPoolExecutor(min(os.cpu_count() or 1, len(seeds))) as pool:
        for seed, wrong in zip(seeds, pool.map(check, seeds, chunksize=1), strict=True):
            bad += bool(wrong)
            for line in wrong[:20]:
                print(f"seed {seed}: {line}", flush=True)
    took = time.monotonic() - began
    print(
        f"{len(seeds)} server-years, {bad} with something wrong; {len(seeds) / took:.1f} a second."
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

"""Many schedules, one after the other, on all cores: what `make chaos` runs.

`python -m frieda.testing.simulation.chaos [--schedules N] [--first SEED] [--processes P]`. Every schedule follows from
its seed. The first that goes wrong is told with its last steps, and the exit code is 1; run it again with
`--first SEED --schedules 1`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections import Counter

from frieda.testing.simulation.cluster import draw_plan, simulate

PROGRESS_EVERY = 500


def try_seed(seed: int) -> tuple[str | None, Counter[str]]:
    """The report of a schedule that went wrong, or None; and what happened in it."""
    outcome = simulate(draw_plan(seed))
    return (outcome.report() if outcome.anomaly else None), Counter(outcome.counts)


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns its exit code."""
    parser = argparse.ArgumentParser(description="Explore replication in simulation.")
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    options = parser.parse_args(arguments)
    totals: Counter[str] = Counter()
    seeds = range(options.first, options.first + options.schedules)
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for done, (report, counts) in enumerate(pool.imap(try_seed, seeds, chunksize=10), 1):
            totals += counts
            if report is not None:
                print(report)
                return 1
            if done % PROGRESS_EVERY == 0:
                print(f"{done} schedules are sound", flush=True)
    print(
        f"{len(seeds)} schedules, seeds {seeds.start} to {seeds.stop - 1}: no anomaly. "
        f"{totals['elections']} elections; {totals['acknowledged']} batches acknowledged; {totals['excused']} records "
        "lost where no promise held (unclean elections, power lost everywhere)."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

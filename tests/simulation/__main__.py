"""Deterministic simulation: the real services on a seeded loop in virtual time, where things go wrong.

What runs is what `main.py` wires: `Leadership`, `Follower`, `Publisher`, `Auditor`, `RpcChainSource` and the
witnesses. What they talk to is simulated: nodes that serve a scripted chain with forks and rogue logs over
JSON-RPC (`node`, `timeline`), a store with the semantics of the port contract (`store`), a backend that keeps
the contract to the letter (`backend`), clocks and announced heads (`world`). A plan says what goes wrong in a
run (`plan`, `scenarios`). Everything follows from the seed: the same seed gives the same trace to the last
event.

After every change of the store, it must be what an independent ledger makes of the chain up to its head, and
row numbers must have no gap and no second meaning (`check`, `ledger`). Then nothing goes wrong any more, and
within bounded virtual time the store must hold the canonical chain, and the backend what the store holds.

    python -m tests.simulation --seed 17                                    one mixture of faults
    python -m tests.simulation --seed 17 --trace                            with everything that happened
    python -m tests.simulation --seed 3 --scenario live-blocks --crash 120  killed after its 120th handle
    python -m tests.simulation --seeds 0..9999 --jobs 2                     many mixtures
    python -m tests.simulation --crash-points 100000 --jobs 2               every handle of small scenarios

A failure prints the end of its trace and the command that runs it again. A seed that found a defect goes to
`seeds.toml` under the defect's name. `bugs` holds defects planted on purpose, each of which must be noticed.
"""

import argparse
import sys
from collections.abc import Iterable

from tests.simulation.campaign import Outcome, Run, campaign_of_crashes, campaign_of_seeds, timed
from tests.simulation.loop import SimFailure
from tests.simulation.scenarios import RANDOM, SCENARIOS
from tests.simulation.world import World

FAILURES_SHOWN = 20


def main() -> int:
    """Exit code 1 if anything failed."""
    options = _options()
    if options.seeds:
        first, _, last = options.seeds.partition("..")
        return _report("seeds", campaign_of_seeds(int(first), int(last or first), options.jobs))
    if options.crash_points:
        names = [options.scenario] if options.scenario != RANDOM else list(SCENARIOS)
        return _report("crash points", campaign_of_crashes(options.crash_points, options.jobs, names))
    return _one(Run(options.seed, options.scenario, options.crash), whole=options.trace)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description="Deterministic simulation."
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenario", choices=[RANDOM, *SCENARIOS], default=RANDOM)
    parser.add_argument("--crash", type=int, default=0, help="kill the first listener after so many handles")
    parser.add_argument("--trace", action="store_true", help="print everything that happened")
    parser.add_argument("--seeds", metavar="A..B", help="random mixtures of faults")
    parser.add_argument(
        "--crash-points", type=int, metavar="N", help="at least so many, every one of each scenario"
    )
    parser.add_argument("--jobs", type=int, default=1)
    return parser.parse_args()


def _one(run: Run, *, whole: bool) -> int:
    world = World(run.plan())
    failure: SimFailure | None = None
    try:
        world.run()
    except SimFailure as error:
        failure = error
    if whole or failure:
        print(world.story(len(world.trace) if whole else 40))
    totals = f"{world.loop.handles} handles, {world.check.commits} commits, {world.fingerprint()[:16]}"
    print(f"{run.command()}: {totals}")
    if failure:
        print(f"{type(failure).__name__}: {failure}")
    return 1 if failure else 0


def _report(what: str, outcomes: Iterable[Outcome]) -> int:
    """Print failures as they come, and totals in the end."""
    total, seconds, told = Outcome(), 0.0, 0.0
    for outcome, seconds in timed(outcomes):
        total.runs += outcome.runs
        for failure in outcome.failures:
            total.failures.append(failure)
            if len(total.failures) <= FAILURES_SHOWN:
                print(f"\n{failure}\n", flush=True)
        if seconds - told > 30:
            told = seconds
            print(f"{total.runs} {what}, {len(total.failures)} failed, {seconds:.0f} s", flush=True)
    each_ms = 1000 * seconds / max(total.runs, 1)
    print(f"{total.runs} {what}, {len(total.failures)} failed, {seconds:.1f} s, {each_ms:.1f} ms each")
    return 1 if total.failures else 0


if __name__ == "__main__":
    sys.exit(main())

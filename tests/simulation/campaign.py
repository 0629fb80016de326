"""Runs in numbers: seeds, or every crash point of scenarios, on one core or several."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from tomllib import loads
from typing import Final, NamedTuple, TypeVar

from tests.simulation.loop import SimFailure
from tests.simulation.plan import Plan
from tests.simulation.scenarios import RANDOM, SCENARIOS, plan_of
from tests.simulation.world import World

T = TypeVar("T")

SEEDS_A_JOB: Final = 20
REGRESSIONS: Final = Path(__file__).with_name("seeds.toml")


class Run(NamedTuple):
    """What names a run."""

    seed: int
    scenario: str = RANDOM
    crash: int = 0

    def command(self) -> str:
        """How to run it again."""
        scenario = "" if self.scenario == RANDOM else f" --scenario {self.scenario}"
        crash = f" --crash {self.crash}" if self.crash else ""
        return f"python -m tests.simulation --seed {self.seed}{scenario}{crash}"

    def plan(self) -> Plan:
        """Everything that it is made of."""
        return plan_of(self.scenario, self.seed, self.crash)

    def problem(self) -> str | None:
        """Run it; what went wrong, with the command and the end of the trace."""
        world = World(self.plan())
        try:
            world.run()
        except SimFailure as failure:
            return f"{self.command()}\n{world.story()}\n{type(failure).__name__}: {str(failure)[:2_000]}"
        return None


@dataclass
class Outcome:
    """Runs, and those that failed."""

    runs: int = 0
    failures: list[str] = field(default_factory=list)

    def add(self, problem: str | None) -> None:
        """Count one run."""
        self.runs += 1
        if problem:
            self.failures.append(problem)


def run_seeds(seeds: Iterable[int]) -> Outcome:
    """Random mixtures of faults."""
    outcome = Outcome()
    for seed in seeds:
        outcome.add(Run(seed).problem())
    return outcome


def crash_points(scenario: str, seed: int) -> int:
    """After how many handles the first listener can be killed in a scenario."""
    world = World(plan_of(scenario, seed))
    world.run()
    return world.crash_points


def run_crashes(unit: tuple[str, int]) -> Outcome:
    """Kill the first listener after every handle of a scenario."""
    scenario, seed = unit
    outcome = Outcome()
    for crash in range(1, crash_points(scenario, seed) + 1):
        outcome.add(Run(seed, scenario, crash).problem())
    return outcome


def campaign_of_seeds(first: int, last: int, jobs: int) -> Iterator[Outcome]:
    """Outcomes of seeds, in chunks, as they come."""
    chunks = [
        range(start, min(start + SEEDS_A_JOB, last + 1)) for start in range(first, last + 1, SEEDS_A_JOB)
    ]
    return _mapped(run_seeds, chunks, jobs)


def campaign_of_crashes(
    points: int, jobs: int, scenarios: Iterable[str] = tuple(SCENARIOS)
) -> Iterator[Outcome]:
    """Outcomes of crash points, a scenario and seed at a time, until there are enough."""
    names = list(scenarios)
    units = ((name, seed) for seed in range(points) for name in names)
    done = 0
    for outcome in _mapped(run_crashes, units, jobs):
        yield outcome
        done += outcome.runs
        if done >= points:
            return


def _mapped(function: Callable[[T], Outcome], items: Iterable[T], jobs: int) -> Iterator[Outcome]:
    """Outcomes in the order of the items, worked out here or in processes."""
    if jobs == 1:
        yield from map(function, items)
    else:
        with get_context("fork").Pool(jobs) as pool:
            yield from pool.imap(function, items)


def regressions() -> dict[str, list[int]]:
    """Seeds that once failed, by the name of what was wrong."""
    return {name: found["seeds"] for name, found in loads(REGRESSIONS.read_text()).items()}


def timed(outcomes: Iterable[Outcome]) -> Iterator[tuple[Outcome, float]]:
    """Outcomes with the seconds since the start."""
    started = perf_counter()
    for outcome in outcomes:
        yield outcome, perf_counter() - started

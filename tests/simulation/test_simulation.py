"""The real services in a simulated world: mixtures of faults by seed, and a crash after every handle.

A failure names its seed and the command that runs it again.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import pytest

from listener.domain.entities import Candle
from listener.domain.rolling import Past
from tests.simulation.bugs import BUGS, SEEDS
from tests.simulation.campaign import Run, regressions, run_crashes, run_seeds
from tests.simulation.loop import SimFailure
from tests.simulation.plan import Plan
from tests.simulation.scenarios import RANDOM, SCENARIOS, deep_fork, plan_of, rolling
from tests.simulation.world import World

pytestmark = [pytest.mark.no_cover, pytest.mark.timeout(300)]
"""Tracing would take twice as long again; what is covered is covered by unit tests."""

CHUNK = 25
CHUNKS = 10
KILLED = {
    "start-up": 1,
    "live-blocks": 3,
    "history-run": 1,
    "creation": 7,
    "lost-tail": 4,
    "takeover": 1,
    "mixed": 1,
}
"""Scenarios and seeds in which a listener is killed at every handle: short ones."""


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_any_mixture_of_faults_comes_right(chunk: int) -> None:
    """Every commit is true, and in the end store and backend are what the canonical chain says."""
    outcome = run_seeds(range(chunk * CHUNK, (chunk + 1) * CHUNK))
    assert outcome.runs == CHUNK
    assert not outcome.failures, "\n\n".join(outcome.failures)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_crash_after_any_handle_comes_right(scenario: str) -> None:
    """Wherever a listener is killed, the next one goes on to the same end."""
    outcome = run_crashes((scenario, KILLED[scenario]))
    assert outcome.runs > 100
    assert not outcome.failures, "\n\n".join(outcome.failures[:5])


@pytest.mark.parametrize("depth", [5, 6])
def test_a_fork_as_deep_as_the_finality_window_is_followed(depth: int) -> None:
    """The store ends up with the new chain."""
    World(deep_fork(1, depth)).run()


@pytest.mark.parametrize("depth", [7, 8])
def test_a_deeper_fork_ends_the_listener(depth: int) -> None:
    """It says why, and the store stays as it was."""
    world = World(deep_fork(1, depth))
    with pytest.raises(SimFailure, match="ReorgTooDeep"):
        world.run()
    head, before = world.store.market.committed, world.timeline.chains[-2][-1].block
    assert head is not None
    assert (head.number, head.hash) == (before.number, before.hash)
    assert not list(world.check.differences())


def test_a_day_rolls_off_whatever_goes_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes that were folded are told apart again, each time as they were committed."""
    split, places = Past.split, []

    def counted(past: Past, place: int, minutes: Sequence[Candle]) -> Past:
        places.append(place)
        return split(past, place, minutes)

    monkeypatch.setattr(Past, "split", counted)
    for seed in range(20):
        World(rolling(seed)).run()
    assert len(places) > 200
    assert any(places), "not only the oldest stretch is split"


@pytest.mark.parametrize("name", regressions())
def test_what_once_failed_passes(name: str) -> None:
    """Seeds that found a defect."""
    outcome = run_seeds(regressions()[name])
    assert outcome.runs
    assert not outcome.failures, "\n\n".join(outcome.failures)


def passes(plan: Plan) -> bool:
    """Whether a run comes right."""
    try:
        World(plan).run()
    except SimFailure:
        return False
    return True


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name: str) -> None:
    """It shows in one of few runs, and these runs pass without it."""
    bug = BUGS[name]
    with bug.planted():
        unnoticed = list(takewhile(lambda seed: passes(bug.plan(seed)), SEEDS))
    assert len(unnoticed) < len(SEEDS), "nobody noticed"
    assert all(passes(bug.plan(seed)) for seed in SEEDS[: len(unnoticed) + 1])


@pytest.mark.parametrize("run", [Run(3), Run(8), Run(2, "lost-tail"), Run(1, "takeover", crash=77)])
def test_a_seed_decides_everything(run: Run) -> None:
    """Two runs of one seed are the same to the last event."""
    worlds = [World(run.plan()) for _ in range(2)]
    for world in worlds:
        world.run()
    assert worlds[0].trace == worlds[1].trace
    assert worlds[0].fingerprint() == worlds[1].fingerprint()


def test_a_seed_decides_everything_in_any_process() -> None:
    """Even the order of sets, which differs between processes, makes no difference."""
    told = {
        subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seed", "3"],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(told) == 1


def test_seeds_reach_every_kind_of_run() -> None:
    """Random plans cover all families, one and two listeners, with and without a backend."""
    plans = [plan_of(RANDOM, seed) for seed in range(CHUNK * CHUNKS)]
    assert {plan.scenario for plan in plans} == {"live", "slow", "history", "quiet", "holes"}
    assert {plan.instances for plan in plans} == {1, 2}
    assert {plan.backend for plan in plans} == {True, False}


def test_things_do_go_wrong() -> None:
    """In few runs there is some of everything that the listener is meant to survive."""
    worlds = [World(plan_of(RANDOM, seed)) for seed in range(60)]
    for world in worlds:
        world.run()
    happened = {what for world in worlds for _, _, what, *_ in world.trace}
    assert happened >= {
        "audit",
        "is asked to stop",
        "reorg",
        "resync",
        "superseded",
        "the backend is away",
        "the backend was restarted",
        "the clock jumps",
        "the store crashes",
        "trouble",
        "was killed",
    }
    assert sum(world.check.missed for world in worlds) <= len(worlds) // 10, (
        "few are excused from being whole"
    )


def test_a_failure_says_how_to_run_it_again() -> None:
    """Seed, command and the end of the trace."""
    bug = BUGS["swallowed cancellation"]
    seed = next(seed for seed in range(100) if plan_of(RANDOM, seed).faults.process.stops)
    with bug.planted():
        problem = Run(seed).problem()
    assert problem is not None
    first, *trace, last = problem.splitlines()
    assert first == f"python -m tests.simulation --seed {seed}"
    assert len(trace) > 10
    assert "was asked to stop and goes on" in last

"""Plans: mixtures of faults by seed, and small scenarios in which a listener is killed at every handle."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from typing import Final

from listener.application.rules import Finality
from listener.domain.value_objects import DAY_MS, MINUTE_MS
from tests.fakes.build import rules
from tests.simulation.backend import BackendFaults
from tests.simulation.node import Bloom, Missing, NodeFaults
from tests.simulation.plan import Faults, HintFaults, Limits, Plan, ProcessFaults
from tests.simulation.store import StoreFaults
from tests.simulation.timeline import Pace

RUNS_ON_A_CHAIN: Final = 4
"""Seeds in a row share a chain, so that its truths are worked out once."""
HOUR_S: Final = 3_600
MOST_BEHIND: Final = 10
"""Blocks that a node may be behind."""
RANDOM: Final = "random"
RETENTION: Final = {"1m": 1_441 * MINUTE_MS, "5m": 2 * DAY_MS}


def random_plan(seed: int) -> Plan:
    """A mixture of faults. Each seed has some kinds of them and not others."""
    rng = Random(f"plan/{seed}")
    chain = seed // RUNS_ON_A_CHAIN
    family = Random(f"kind/{chain}").choices((busy, slow, catching_up, quiet, holes), (8, 2, 3, 2, 3))[0]
    plan = family(chain)
    faults = _faults(rng, plan)
    if family is holes:
        plan = replace(plan, bloom="strict" if plan.whole else "lenient")
        faults = replace(faults, node=_with_holes(rng, plan, faults.node))
    second = rng.random() < 0.3
    return replace(plan, seed=seed, faults=faults, instances=rng.choice((1, 1, 2)), second=second)


def _faults(rng: Random, plan: Plan) -> Faults:
    def sometimes(most: float) -> float:
        return most * rng.random() if rng.random() < 0.4 else 0

    def count(most: int) -> int:
        return rng.randint(1, most) if rng.random() < 0.4 else 0

    fair_s = min(plan.setting().timeline.fair_lag_s(plan.finality), MOST_BEHIND * plan.pace.block_s)
    lag_s = rng.choice((0, fair_s * rng.random(), fair_s * rng.random()))
    tails = count(2)
    node = NodeFaults(
        slow=sometimes(0.3),
        silent=sometimes(0.1),
        refuse=sometimes(0.2),
        lag_s=lag_s,
        orphans=rng.random() < 0.5,
        receipts=sometimes(0.5),
        finalized=rng.choice((None, plan.finality, plan.finality + 5)),
    )
    return Faults(
        node=node,
        store=StoreFaults(
            slow=sometimes(0.2),
            lost=sometimes(0.15),
            error=sometimes(0.15),
            late=sometimes(0.1),
            away=count(3),
            tails=tails,
        ),
        backend=BackendFaults(lost=sometimes(0.3), slow=sometimes(0.3), refuse=sometimes(0.2), away=count(3)),
        hints=HintFaults(
            drop=sometimes(1), late=sometimes(0.6), double=sometimes(0.5), nonsense=sometimes(0.4)
        ),
        process=ProcessFaults(
            crashes=count(4),
            stops=count(2),
            clock_ms=0 if tails else rng.choice((0, 90_000, 7_200_000)),
            clock_jumps=count(3),
        ),
    )


def _with_holes(rng: Random, plan: Plan, node: NodeFaults) -> NodeFaults:
    """Logs of new blocks are left out for a while: all of them under true blooms, or some under any."""
    missing: Missing = "all" if plan.whole else rng.choice(("some", "all", "last"))
    bloom: Bloom = "true" if plan.whole else rng.choice(("true", "zero", "full"))
    return replace(
        node, missing=missing, missing_s=rng.uniform(1, 30), lag_s=min(node.lag_s, 40), bloom=bloom
    )


def _finality(rng: Random) -> int:
    """Forks of six blocks are final after six, or seventeen: then a node may be ten blocks behind."""
    return rng.choice((6, 17))


def busy(chain: int) -> Plan:
    """Near the tip of a busy chain."""
    rng = Random(f"live/{chain}")
    return Plan(
        "live",
        0,
        chain,
        pace=Pace(blocks=rng.randint(8, 24), history=rng.randint(3, 12)),
        rules=rules(
            "5m",
            "1d",
            finality=Finality(_finality(rng)),
            audit_blocks=rng.choice((0, 6)),
            trades_kept=rng.choice((3, 200)),
        ),
        limits=Limits(batch_rows=rng.choice((5, 20, 100)), outbox_rows=rng.choice((25, 10_000))),
        start=rng.choice((1, None)),
    )


def slow(chain: int) -> Plan:
    """A chain whose blocks are hours apart: figures roll off and candles are trimmed between them."""
    rng = Random(f"slow/{chain}")
    return Plan(
        "slow",
        0,
        chain,
        pace=Pace(
            block_s=rng.choice((2, 5)) * HOUR_S, blocks=rng.randint(6, 12), history=6, forks=0.25, busy=0.5
        ),
        rules=rules(
            "5m",
            "1d",
            finality=Finality(_finality(rng)),
            audit_blocks=rng.choice((0, 6)),
            retention_ms=RETENTION,
        ),
        limits=Limits(poll_s=1200),
        stretch=600,
        handles_max=200_000,
    )


def catching_up(chain: int) -> Plan:
    """Much to catch up with, by ranges."""
    rng = Random(f"history/{chain}")
    return Plan(
        "history",
        0,
        chain,
        pace=Pace(history=rng.randint(15, 40), blocks=rng.randint(2, 8)),
        rules=rules("5m", "1d", finality=Finality(_finality(rng)), audit_blocks=rng.choice((0, 6))),
        limits=Limits(range_blocks=rng.choice((1, 3, 8)), commit_trades=rng.choice((1, 5, 20))),
        start=None,
    )


def quiet(chain: int) -> Plan:
    """Without a backend: no rows, so that two heads may have the same numbers."""
    return replace(busy(chain), scenario="quiet", backend=False)


def holes(chain: int) -> Plan:
    """Nodes that leave logs out. Where blooms cannot tell, the audit repairs it before it is too late."""
    rng = Random(f"holes/{chain}")
    return Plan(
        "holes",
        0,
        chain,
        pace=Pace(blocks=rng.randint(8, 20), history=rng.randint(3, 12), epilogue=24),
        rules=rules("5m", "1d", finality=Finality(rng.choice((8, 17))), audit_blocks=60),
        whole=rng.random() < 0.3,
    )


def start_up(seed: int) -> Plan:
    """The first start, on a chain that has a few blocks."""
    return Plan("start-up", seed, seed % 8, pace=Pace(history=5, blocks=2, forks=0), start=None)


def live(seed: int) -> Plan:
    """Live blocks with forks."""
    return Plan("live-blocks", seed, seed % 8, pace=Pace(history=3, blocks=6, forks=0.3, fork_depth=3))


def history(seed: int) -> Plan:
    """A run of final blocks."""
    return Plan(
        "history-run",
        seed,
        seed % 8,
        pace=Pace(history=14, blocks=1, forks=0),
        limits=Limits(range_blocks=3, commit_trades=4),
    )


def creation(seed: int) -> Plan:
    """Creations and graduations, some of them orphaned."""
    return Plan(
        "creation", seed, seed % 8, pace=Pace(history=3, blocks=5, forks=0.4, fork_depth=3, busy=1, markets=5)
    )


def lost_tail(seed: int) -> Plan:
    """The store goes back in time."""
    plan = live(seed)
    return replace(plan, scenario="lost-tail", faults=Faults(store=StoreFaults(tails=1)))


def takeover(seed: int) -> Plan:
    """A second listener stands by and takes over."""
    return replace(live(seed), scenario="takeover", instances=2)


def mixed(seed: int) -> Plan:
    """Other things go wrong too."""
    plan = live(seed)
    faults = _faults(Random(f"mixed/{seed}"), plan)
    return replace(plan, scenario="mixed", faults=replace(faults, process=ProcessFaults()))


def rolling(seed: int) -> Plan:
    """Blocks some minutes apart for more than a day, so that folded minutes have to be told apart again."""
    rng = Random(f"rolling/{seed}")
    plan = Plan(
        "rolling",
        seed,
        seed % 4,
        pace=Pace(block_s=900, history=90, blocks=24, forks=0.25, busy=0.9, markets=2),
        rules=rules("5m", "1d", finality=Finality(6), audit_blocks=0, retention_ms=RETENTION),
        limits=Limits(poll_s=150, range_blocks=8, commit_trades=rng.choice((5, 20))),
        stretch=75,
        handles_max=200_000,
    )
    return replace(plan, faults=_faults(rng, plan))


def deep_fork(seed: int, depth: int) -> Plan:
    """A fork, so and so deep, of a chain that is followed block by block."""
    return Plan(
        "deep-fork",
        seed,
        seed % 8,
        pace=Pace(history=9, blocks=4, forks=0, last_fork=depth),
        rules=rules("5m", "1d", finality=Finality(6), audit_blocks=0),
    )


SCENARIOS: Final[Mapping[str, Callable[[int], Plan]]] = {
    "start-up": start_up,
    "live-blocks": live,
    "history-run": history,
    "creation": creation,
    "lost-tail": lost_tail,
    "takeover": takeover,
    "mixed": mixed,
}
"""Scenarios small enough to kill a listener at every handle."""


def plan_of(scenario: str, seed: int, crash: int = 0) -> Plan:
    """The plan that a failure's message names."""
    if scenario == RANDOM:
        return random_plan(seed)
    plan = SCENARIOS[scenario](seed)
    return replace(plan, crash=crash, drops_what_the_dead_sent=bool(seed % 2))

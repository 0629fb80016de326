"""Whatever dies, alone or with another, and whatever Redis loses: the end equals the oracle, everywhere."""

from pathlib import Path

import pytest

from tests.chaos.round import COMBINATIONS, Plan, run_round
from tests.chaos.world import Part, Server, World

SEED = 5


def plan(
    number: int,
    *killed: Part,
    cut: bool = False,
    again: bool = False,
    standby: bool = False,
    frozen: bool = False,
) -> Plan:
    """A round with its place in the seed's row."""
    return Plan.of(f"{SEED}-{number}", killed, cut=cut, again=again, standby=standby, frozen=frozen)


ON_VALKEY = (
    plan(0, "node"),
    plan(1, "redis", "listener", cut=True, again=True),
    plan(2, "backend"),
    plan(3, "listener", standby=True, frozen=True),
    plan(4, "node", "redis"),
)
ON_REDIS = (
    plan(5, "backend", "listener", standby=True),
    plan(6, "redis", cut=True),
    plan(7, "node", "listener"),
    plan(8, "redis", "backend", cut=True),
    plan(9, "node", "backend"),
)


def test_all_combinations_have_a_round() -> None:
    """Each part alone and each pair is killed by one of the rounds below."""
    killed = {frozenset(one.killed) for one in ON_VALKEY + ON_REDIS}
    assert killed == {frozenset(combination) for combination in COMBINATIONS}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("server", "plans"), [("valkey", ON_VALKEY), ("redis", ON_REDIS)])
def test_kills_under_load(tmp_path: Path, server: Server, plans: tuple[Plan, ...]) -> None:
    """Rounds of SIGKILL, reorgs and lost data in a running system; after each, all that is held is right."""
    with World(tmp_path, SEED, server) as world:
        for one in plans:
            outcome = run_round(world, one)
            print(outcome.row())

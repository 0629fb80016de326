"""One round of chaos: a seeded plan of what dies, loses data and comes back when, and what was seen."""

import random
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Final, Literal, NamedTuple

from tests.chaos.chain import FORK_MAX
from tests.chaos.world import PARTS, SERVERS, Part, World

COMBINATIONS: Final[tuple[tuple[Part, ...], ...]] = (
    *((part,) for part in PARTS),
    *combinations(PARTS, 2),
)
"""What a round kills: each part, and each pair."""
STORING: Final = {"node", "redis"}
"""What a listener cannot commit without."""
TAKEOVER_MAX_S: Final = 5.0
ROUNDS_A_SYSTEM: Final = len(COMBINATIONS)


class Step(NamedTuple):
    """Something done to the system, so long after the round's beginning."""

    at_s: float
    act: Literal["kill", "start", "save", "reorg", "cut"]
    part: Part = "node"
    amount: int = 0
    """Blocks of a reorg, bytes of a cut."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a round does. The same seed and killed parts make the same plan.

    Attributes:
        standby: a second listener stands by when the first is killed, which is then not started again.
        frozen: alone and with another standing by, a listener is not killed but frozen, and thawed later.
        again_s: Redis is killed once more, so long after a listener has taken the restarted one over.
    """

    seed: str
    killed: tuple[Part, ...]
    steps: tuple[Step, ...]
    standby: bool
    frozen: bool
    again_s: float | None

    @classmethod
    def of(
        cls,
        seed: str,
        killed: Sequence[Part],
        *,
        cut: bool | None = None,
        standby: bool | None = None,
        frozen: bool | None = None,
        again: bool | None = None,
    ) -> "Plan":
        """Make a plan.

        Args:
            seed: of everything that is left to chance.
            killed: in any order.
            cut: whether a killed Redis loses the end of its file; None leaves it to chance.
            standby: whether a second listener is there when one is killed; None leaves it to chance.
            frozen: whether that one is only frozen if it dies alone; None leaves it to chance.
            again: whether it dies again then, when it has just come back; None leaves it to chance.
        """
        dice = random.Random(seed)
        order = dice.sample(list(killed), len(killed))
        steps: list[Step] = []
        lossy = "redis" in killed and (dice.random() < 0.5 if cut is None else cut)
        twice = lossy and (dice.random() < 0.4 if again is None else again)
        second = "listener" in killed and (dice.random() < 0.4 if standby is None else standby)
        at = dice.uniform(0.3, 0.9)
        if dice.random() < 0.5:
            steps.append(Step(at - dice.uniform(0, 0.3), "reorg", amount=dice.randint(1, FORK_MAX)))
        for part in order:
            if part == "node":
                steps.append(Step(at - dice.uniform(0, 0.8), "save"))
            steps.append(Step(at, "kill", part))
            at += dice.choice((0.0, dice.uniform(0, 0.6)))
        if dice.random() < 0.7:
            steps.append(Step(at + dice.uniform(0, 0.3), "reorg", amount=dice.randint(1, FORK_MAX)))
        at += dice.uniform(0.05, 0.8)
        for part in dice.sample(order, len(order)):
            if part == "listener" and second:
                continue
            if part == "redis" and lossy:
                steps.append(Step(at, "cut", "redis", int(10 ** dice.uniform(0, 6.5))))
            steps.append(Step(at, "start", part))
            at += dice.choice((0.0, dice.uniform(0, 0.4)))
        if dice.random() < 0.3:
            steps.append(Step(at + dice.uniform(0, 0.5), "reorg", amount=dice.randint(1, FORK_MAX)))
        alone = second and order == ["listener"]
        freezes = alone and (dice.random() < 0.5 if frozen is None else frozen)
        again_s = dice.uniform(0, 0.05) if twice else None
        steps.sort(key=lambda step: step.at_s)
        return cls(seed, tuple(order), tuple(steps), second, freezes, again_s)


@dataclass(slots=True)
class Outcome:
    """What a round did, and how long the system took.

    Attributes:
        lost_bytes: cut off Redis' file.
        lost_blocks: gone with the node.
        reorgs: depths.
        commit_s: from the last start until a block mined after it was committed.
        deliver_s: from the last start until the backend had handled that block's rows.
        takeover_s: from the end of one of two listeners until the other's first commit; None where there was
            no other, or node or Redis died too.
        resyncs: how often Redis held a part of a commit, and was loaded anew.
        seconds: the whole round, with the comparison.
    """

    plan: Plan
    lost_bytes: int = 0
    lost_blocks: int = 0
    reorgs: list[int] = field(default_factory=list)
    commit_s: float = 0.0
    deliver_s: float = 0.0
    takeover_s: float | None = None
    resyncs: int = 0
    seconds: float = 0.0

    def row(self) -> str:
        """A line of the table."""
        killed = "listener (frozen)" if self.plan.frozen else "+".join(self.plan.killed)
        killed += "" if self.plan.again_s is None else " x2"
        takeover = "" if self.takeover_s is None else f"{self.takeover_s:.2f}"
        reorgs = ",".join(map(str, self.reorgs)) or "-"
        return (
            f"{self.plan.seed:>8}  {killed:<18} {self.lost_bytes:>8} {self.lost_blocks:>6}  {reorgs:<8}"
            f" {self.commit_s:>7.2f} {self.deliver_s:>7.2f} {takeover:>8}"
            f" {self.resyncs:>6} {self.seconds:>6.1f}"
        )


HEADINGS: Final = (
    f"{'round':>8}  {'killed':<18} {'B cut':>8} {'blocks':>6}  {'reorgs':<8}"
    f" {'commit':>7} {'deliver':>7} {'takeover':>8} {'resync':>6} {'all s':>6}"
)


def run_round(world: World, plan: Plan) -> Outcome:
    """Carry a plan out, let the system recover, and compare all that it holds.

    Raises:
        AssertionError: it did not recover, or holds what it should not.
    """
    outcome = Outcome(plan)
    if plan.standby:
        world.start("listener")
        world.wait(world.stands_by, "a listener to stand by")
    started = time.monotonic()
    for step in plan.steps:
        world.pause(until=started + step.at_s)
        take(world, step, outcome)
    resyncs = world.resyncs
    if plan.again_s is not None:
        world.kill_redis_again(plan.again_s)
    whole = time.monotonic()
    above = world.chain.regrow() - 1
    world.wait(lambda: world.committed(above), f"a commit above block {above}")
    outcome.commit_s = time.monotonic() - whole
    row = world.newest_row()
    world.wait(lambda: world.delivered(row), f"delivery of row {row}")
    outcome.deliver_s = time.monotonic() - whole
    world.settle()
    outcome.resyncs = world.resyncs - resyncs
    outcome.seconds = time.monotonic() - started
    return outcome


def take(world: World, step: Step, outcome: Outcome) -> None:
    """Do one step, and note what it came to."""
    if step.act == "kill" and outcome.plan.frozen:
        frozen = world.freeze()
        outcome.takeover_s = take_over(world)
        world.thaw(frozen)
    elif step.act == "kill":
        outcome.lost_blocks += world.kill(step.part)
        if outcome.plan.standby and step.part == "listener" and STORING.isdisjoint(outcome.plan.killed):
            outcome.takeover_s = take_over(world)
    elif step.act == "start":
        world.start(step.part)
    elif step.act == "save":
        world.chain.save()
    elif step.act == "cut":
        outcome.lost_bytes += world.cut(step.amount)
    elif depth := world.chain.reorg(step.amount):
        outcome.reorgs.append(depth)


def take_over(world: World) -> float:
    """Wait for the first commit of the listener that stood by; seconds since the other's death.

    Raises:
        AssertionError: it took too long.
    """
    before = world.head()
    world.wait(lambda: world.taken_over(before), "a commit of the other listener")
    passed = time.monotonic() - world.killed_at
    assert passed <= TAKEOVER_MAX_S, f"the other listener took over after {passed:.1f} s"
    return passed


def run_system(
    directory: Path, seed: int, number: int, rounds: int = ROUNDS_A_SYSTEM
) -> Generator[Outcome, None, None]:
    """The first rounds of a fresh system, which kill each combination once; Valkey and Redis take turns.

    Raises:
        AssertionError: a round failed; with the command that repeats it.
    """
    dice = random.Random(f"{seed}-{number}")
    killed = dice.sample(COMBINATIONS, ROUNDS_A_SYSTEM)[:rounds]
    first = number * ROUNDS_A_SYSTEM
    with World(directory, seed + number, SERVERS[number % len(SERVERS)]) as world:
        for place, parts in enumerate(killed):
            plan = Plan.of(f"{seed}-{first + place}", parts)
            try:
                yield run_round(world, plan)
            except Exception as error:
                told = repr(error)[:2000]
                again = f"python -m tests.chaos --seed {seed} --first {first} --rounds {place + 1}"
                steps = "\n".join(map(str, plan.steps))
                raise AssertionError(
                    f"round {plan.seed} failed: {told}\n{steps}\nlogs: {directory}\nrepeat with: {again}"
                ) from error

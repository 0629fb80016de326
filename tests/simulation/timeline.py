"""What happens on the chain, decided in advance: when which blocks exist, and which are canonical."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from listener.domain.facts import BlockFacts, MarketAnnounced
from listener.domain.value_objects import Address
from tests.fakes.build import (
    ETHER,
    FACTORY,
    MONDAY_MS,
    STRANGER,
    Maker,
    created,
    curve,
    graduate,
    malformed,
    swap,
    token,
)
from tests.fakes.chain import LocalChain

UNREADABLE_TOKEN: Final = 9
DEPLOYED: Final = 2
"""Block in which the factory was deployed."""


@dataclass(frozen=True)
class Pace:
    """How a chain behaves.

    Attributes:
        block_s: time between two blocks.
        history: blocks that exist before anybody follows the chain.
        blocks: blocks that are mined while it is followed.
        markets: most markets.
        busy: share of blocks that have logs.
        logs: most logs in a block.
        forks: share of steps that are forks.
        fork_depth: deepest fork.
        epilogue: blocks that are mined when nothing goes wrong any more.
        reverts: forks may leave a lower tip behind, which then grows block by block.
        last_fork: depth of a fork at the end; 0: there is none.
    """

    block_s: int = 12
    history: int = 4
    blocks: int = 16
    markets: int = 3
    busy: float = 0.7
    logs: int = 3
    forks: float = 0.15
    fork_depth: int = 6
    epilogue: int = 0
    reverts: bool = True
    last_fork: int = 0


@dataclass
class Timeline:
    """A chain over time.

    Attributes:
        times: virtual seconds at which the canonical chain changed, ascending.
        chains: the canonical chain from then on, block 0 first.
        born: every block that ever was, by hash, and when it appeared.
        calm_s: when nothing may go wrong any more.
    """

    local: LocalChain
    calm_s: float = 0
    times: list[float] = field(default_factory=list)
    chains: list[tuple[BlockFacts, ...]] = field(default_factory=list)
    born: dict[str, tuple[float, BlockFacts]] = field(default_factory=dict)

    def note(self, time_s: float) -> None:
        """The chain is as it is now from `time_s` on."""
        self.times.append(time_s)
        self.chains.append(tuple(self.local.blocks))
        for facts in self.local.blocks:
            mined_s = min((facts.block.timestamp - MONDAY_MS) / 1000, 0) if time_s == 0 else time_s
            self.born.setdefault(facts.block.hash, (mined_s, facts))

    def at(self, time_s: float) -> tuple[BlockFacts, ...]:
        """The canonical chain at an instant."""
        return self.chains[max(bisect_right(self.times, time_s) - 1, 0)]

    @property
    def final(self) -> tuple[BlockFacts, ...]:
        """The canonical chain when everything has happened."""
        return self.chains[-1]

    @property
    def end_s(self) -> float:
        """When the last change happens."""
        return self.times[-1]

    def fair_lag_s(self, finality: int) -> float:
        """How far a node may be behind without ever denying a block that was final for somebody else."""
        fair_s = self.end_s
        for new, chain in enumerate(self.chains):
            final = len(chain) - 1 - finality
            for old in range(new):
                common = _common(self.chains[old], chain)
                if common < min(final + 1, len(self.chains[old])):
                    fair_s = min(fair_s, self.times[new] - self.times[old + 1])
        return fair_s


def _common(one: Sequence[BlockFacts], other: Sequence[BlockFacts]) -> int:
    """How many blocks two chains have in common."""
    return bisect_left(
        range(min(len(one), len(other))), 1, key=lambda n: one[n].block.hash != other[n].block.hash
    )


def write_timeline(seed: object, pace: Pace, finality: int) -> Timeline:
    """A chain that forks, never deeper than `finality` below the highest tip it ever had."""
    return _Writer(Random(f"{seed}/chain"), str(seed), pace, finality).write()


class _Writer:
    """Mines and forks by lot."""

    def __init__(self, rng: Random, salt: str, pace: Pace, finality: int) -> None:
        self._rng = rng
        self._pace = pace
        self._finality = finality
        before_ms = pace.history * pace.block_s * 1000
        self._chain = LocalChain(salt=salt, time=MONDAY_MS - before_ms)
        self._chain.tokens[Address(token(UNREADABLE_TOKEN))] = None
        self._chain.codes[FACTORY] = DEPLOYED
        self._highest = 0
        self._clock_s = 0.0

    def write(self) -> Timeline:
        """All of it."""
        pace, timeline = self._pace, Timeline(self._chain)
        for _ in range(pace.history):
            self._mine(pace.block_s)
        timeline.note(0)
        for _ in range(pace.blocks):
            self._clock_s += pace.block_s * self._rng.choice((0.2, 0.9, 1, 1, 1, 1.1, 2))
            if self._rng.random() < pace.forks:
                self._fork()
            else:
                self._mine_now()
            timeline.note(self._clock_s)
        while self._height <= self._highest:
            self._clock_s += pace.block_s
            self._mine_now()
            timeline.note(self._clock_s)
        if pace.last_fork:
            self._clock_s += 3 * pace.block_s
            self._chain.fork(pace.last_fork)
            for _ in range(pace.last_fork + 1):
                self._mine(1)
            timeline.note(self._clock_s)
        timeline.calm_s = self._clock_s + 1
        for _ in range(pace.epilogue):
            self._clock_s += pace.block_s
            self._mine_now()
            timeline.note(self._clock_s)
        return timeline

    @property
    def _height(self) -> int:
        return self._chain.tip.number

    def _fork(self) -> None:
        self._highest = max(self._highest, self._height)
        depth = min(
            self._rng.randint(1, self._pace.fork_depth), self._height - self._highest + self._finality
        )
        depth = min(depth, self._height - DEPLOYED - 1)
        if depth < 1:
            return self._mine_now()
        tip = self._height
        self._chain.fork(depth)
        if self._pace.reverts and self._rng.random() < 0.3:
            return None
        for _ in range(depth + self._rng.choice((0, 1, 1, 2))):
            self._mine(1)
        if self._height < tip:
            self._mine_now()
        return None

    def _mine_now(self) -> None:
        """A block of this instant, as far as its parent allows."""
        now_ms = MONDAY_MS + math.floor(self._clock_s) * 1000
        self._mine(max((now_ms - self._chain.tip.timestamp) // 1000, 1))

    def _mine(self, after_s: int) -> None:
        self._chain.mine(*self._logs(), after_ms=after_s * 1000)

    def _logs(self) -> list[Maker]:
        """What the next block says."""
        rng, known = self._rng, self._created()
        if self._height < DEPLOYED:
            return []
        if not known:
            return self._creation(0)
        if rng.random() >= self._pace.busy:
            return []
        makers: list[Maker] = []
        for _ in range(rng.randint(1, self._pace.logs)):
            kind = rng.random()
            if kind < 0.12 and len(known) < self._pace.markets:
                makers += self._creation(len(known))
            elif kind < 0.17:
                makers.append(graduate(rng.choice(known)))
            elif kind < 0.30:
                makers.append(self._nonsense(known))
            else:
                makers.append(self._trade(rng.choice(known)))
        return makers

    def _created(self) -> list[int]:
        """Numbers of the tokens that have a market."""
        found = {
            fact.market
            for facts in self._chain.blocks
            for fact in facts.facts
            if isinstance(fact, MarketAnnounced) and fact.announcer == FACTORY
        }
        return [number for number in range(UNREADABLE_TOKEN) if token(number) in found]

    def _creation(self, number: int) -> list[Maker]:
        """A creation; now and then with a trade in the same transaction, before or after it."""
        kind = self._rng.random()
        label = f"tx{number}"
        if kind < 0.3:
            return [self._trade(number, label), created(number, tx=label)]
        if kind < 0.6:
            return [created(number, tx=label), self._trade(number, label)]
        if kind < 0.7:
            return [self._trade(number), created(number)]
        return [created(number)]

    def _trade(self, number: int, tx: str | None = None) -> Maker:
        rng = self._rng
        return swap(
            number,
            rng.randint(1, 10**4) * 10 ** rng.randint(0, 18),
            rng.randint(1, 10**4) * 10 ** rng.randint(8, 18),
            buy=rng.random() < 0.6,
            reserves=(rng.randint(1, 10**6) * ETHER, rng.randint(1, 10**6) * ETHER),
            fee=rng.choice((0, 10**15)),
            tx=tx,
        )

    def _nonsense(self, known: Sequence[int]) -> Maker:
        """A log that must change nothing."""
        rng, number = self._rng, self._rng.choice(known)
        new = len(known)
        return rng.choice(
            (
                swap(number, source=STRANGER),
                swap(new, source=curve(new)) if new < UNREADABLE_TOKEN else swap(number, source=STRANGER),
                swap(number, base=0),
                swap(number, quote=0),
                swap(number, market_of=token(8)),
                created(7, by=STRANGER),
                created(number),
                created(UNREADABLE_TOKEN),
                malformed(curve(number)),
                malformed(STRANGER),
            )
        )

"""A seeded life of a launchpad on a `LocalChain`: every kind of log, and what each pool holds."""

import random
from typing import Final

from listener.domain.value_objects import ZERO_ADDRESS, Address, MarketId
from listener.infrastructure.blockchain.pool_terms import FACTORY as FACTORY_OF
from listener.infrastructure.blockchain.pool_terms import PARAMETERS
from listener.infrastructure.blockchain.tokens import TOTAL_SUPPLY
from tests import oracle
from tests.fakes.build import (
    ETHER,
    FACTORY,
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
from tests.fakes.node import FakeNode, logs_of, returned

SUPPLY: Final = 10**24
VIRTUAL: Final = (73 * 10**21, 30 * ETHER)
"""Reserves that events state and no pool holds."""
FEE_BPS: Final = 125
TOKENS: Final = 8


class Launches:
    """Writes blocks; amounts never exceed what the pool of a market holds.

    Args:
        seed: the same seed writes the same blocks.
    """

    def __init__(self, seed: int) -> None:
        self.chain = LocalChain(salt=str(seed))
        self.node = FakeNode(self.chain, bloom=None)
        self._random = random.Random(seed)
        self._held: dict[int, tuple[int, int]] = {}
        self._ended: set[int] = set()
        self._before: list[tuple[dict[int, tuple[int, int]], set[int]]] = []
        words = [SUPPLY + VIRTUAL[0], VIRTUAL[1], SUPPLY, 10 * ETHER, FEE_BPS]
        self.node.contracts[FACTORY, PARAMETERS] = returned("uint256[5]", words)
        for number in range(TOKENS):
            self.node.contracts[curve(number), FACTORY_OF] = returned("address", FACTORY)
            self.node.contracts[token(number), TOTAL_SUPPLY] = returned("uint256", SUPPLY)

    def mine(self) -> None:
        """One block, often with several logs, some of them in one transaction."""
        self._before.append((dict(self._held), set(self._ended)))
        makers: list[Maker] = []
        for _ in range(self._random.choice((0, 1, 2, 3, 6))):
            makers += self._some(f"tx{self._random.randrange(3)}-{len(makers)}")
        self.chain.mine(*makers, after_ms=self._random.choice((1, 12, 60, 600)) * 1000)

    def fork(self, depth: int) -> int:
        """Orphan blocks; number of the common ancestor."""
        for _ in range(depth):
            self._held, self._ended = self._before.pop()
        return self.chain.fork(depth).number

    def _some(self, tx: str) -> list[Maker]:
        fresh, trading = len(self._held), self._open()
        logs: list[Maker] = []
        match self._random.randrange(12):
            case 0 if fresh < TOKENS:
                self._held[fresh] = SUPPLY, 0
                both = [created(fresh, tx=tx), self._trade(fresh, tx)]
                logs = self._random.sample(both, 2)  # some factories announce last
            case 1 if self._held:
                logs = [created(0, source=curve(70)), swap(0, source=curve(70)), created(9, by=STRANGER)]
            case 2:
                logs = [malformed(curve(0)), malformed(STRANGER), swap(0, source=STRANGER), swap(9)]
            case 3 if self._held:
                other = MarketId("0x" + "7" * 40)
                logs = [swap(0, 0, 5), swap(0, 5, 0), swap(0, market_of=other)]
            case 4 if len(trading) > 2 and self._held[trading[-1]][1]:
                self._ended.add(trading[-1])
                last = self._trade(trading[-1], tx)
                held = self._held[trading[-1]]
                logs = [last, graduate(trading[-1], ZERO_ADDRESS, tx=tx, liquidity=held)]
            case _ if trading:
                logs = [self._trade(self._random.choice(trading), tx)]
        return logs

    def _open(self) -> list[int]:
        return sorted(self._held.keys() - self._ended)

    def _trade(self, number: int, tx: str) -> Maker:
        base, quote = self._held[number]
        buy = base == SUPPLY or quote < 2 or self._random.random() < 0.6
        amounts = self._random.randrange(1, (base if buy else SUPPLY - base) // 2 + 2), 10**10
        if buy:
            amounts = amounts[0], self._random.choice((1, 10**9, 10**17)) * self._random.randrange(1, 99)
            held = base - amounts[0], quote + amounts[1]
        else:
            amounts = amounts[0], self._random.randrange(1, quote)
            held = base + amounts[0], quote - amounts[1]
        self._held[number] = held
        stated = held[0] + VIRTUAL[0], held[1] + VIRTUAL[1]
        return swap(number, *amounts, buy=buy, reserves=stated, tx=tx)

    def truth(self) -> oracle.Expected:
        """What the oracle makes of the chain."""
        metadata: dict[str, oracle.TokenMetadata | None] = {
            address: info and oracle.TokenMetadata(info.decimals, info.name, info.symbol)
            for address, info in self.chain.tokens.items()
        }
        blocks = [
            oracle.Block(facts.block.number, facts.block.hash, facts.block.timestamp // 1000)
            for facts in self.chain.blocks
        ]
        logs = [log for facts in self.chain.blocks for log in logs_of(facts)]
        return oracle.compute(oracle.Chain(blocks, logs, metadata), oracle.Settings([Address(FACTORY)]))

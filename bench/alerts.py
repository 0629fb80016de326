"""What alert rules cost: fold and commit blocks without rules and with many, in turns.

    .venv/bin/python -m bench.alerts [--rules 10000] [--for-all 0] [--blocks 600]

Two streams on one Valkey get the same blocks, each committed to one and then to the other, in changing order;
one of them has rules. Measured is what the follower does from a block's facts to Redis' answer: new rules
looked for, trades folded, rules held against them, commands written and applied. Decoding and the node are
left out, so that the share is an upper bound of a listener's.

The rules are spread evenly over the markets: 70 % prices around the first one, up to five times higher or
lower, and 10 % each of changes, volume spikes and trade sizes; half of them repeat, with a hysteresis of 5 %.
"""

import argparse
import asyncio
import gc
import json
import statistics
import tempfile
from collections import deque
from pathlib import Path
from random import Random
from time import perf_counter, process_time
from typing import Any, Final, NamedTuple

from bench.system import machine
from listener.application.interfaces import ChainIdentity
from listener.application.rules import Finality, Rules
from listener.application.services.alert_book import REFRESH_S, AlertBook
from listener.application.state import StreamState
from listener.application.use_cases.process_block import process_blocks
from listener.application.use_cases.resolve_block import Resolved, resolve_blocks
from listener.demo.processes import start_valkey
from listener.domain.alerts import AlertCondition, AlertRule
from listener.domain.entities import TokenInfo
from listener.domain.facts import BlockFacts, MarketAnnounced, Swapped
from listener.domain.value_objects import ZERO_ADDRESS, Address, BlockRef, Interval, MarketId
from listener.infrastructure.clock import SystemClock
from listener.infrastructure.redis.alert_codec import encode_rule
from listener.infrastructure.redis.alert_rules import MOST_FOR_ALL, RedisAlertRules
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.outbox import OutboxBounds
from listener.infrastructure.redis.store import RedisStore
from listener.main import spare_collector

FACTORY: Final = Address("0x" + "fa" * 20)
TRADER: Final = Address("0x" + "dd" * 20)
ETHER: Final = 10**18
START_MS: Final = 1_767_571_200_000
BLOCK_MS: Final = 2_000
WARM_UP: Final = 100
BY: Final = Rules(
    intervals=tuple(map(Interval.parse, ("1m", "5m", "15m", "1h", "4h", "1d"))),
    published=frozenset(("1m", "5m", "15m", "1h", "4h", "1d")),
    price_mode="execution",
    retention_ms={},
    trades_kept=200,
    finality=Finality(60),
    factories=frozenset({FACTORY}),
)


def market_of(number: int) -> MarketId:
    """A market's id."""
    return MarketId(f"0x{0xA00000 + number:040x}")


def block_hash(number: int) -> str:
    """A block's hash."""
    return f"0x{number + 1:064x}"


class Tape:
    """Blocks of trades whose prices walk at random, one per cent at a time."""

    def __init__(self, markets: int, trades: int) -> None:
        self._rng = Random(1)  # noqa: S311 - a workload, not a secret
        self._prices = [1.0] * markets
        self._trades = trades
        self._number = 0

    def next(self) -> BlockFacts:
        """The next block; the first one creates the markets."""
        self._number += 1
        number = self._number
        ref = BlockRef(number, block_hash(number), block_hash(number - 1), START_MS + number * BLOCK_MS)
        if number == 1:
            return BlockFacts(ref, tuple(map(self._creation, range(len(self._prices)))), "digest")
        return BlockFacts(ref, tuple(map(self._trade, range(self._trades))), "digest")

    def _creation(self, number: int) -> MarketAnnounced:
        market = market_of(number)
        source = f"0x{0xC00000 + number:040x}"
        tx_hash = block_hash(number)
        return MarketAnnounced(
            FACTORY, number, tx_hash, "bonding_curve", market, Address(market), ZERO_ADDRESS, source, TRADER
        )

    def _trade(self, log_index: int) -> Swapped:
        rng = self._rng
        number = rng.randrange(len(self._prices))
        self._prices[number] *= rng.choice((0.99, 1.01))
        quote = rng.randint(1, 1_000) * ETHER // 1_000
        source = f"0x{0xC00000 + number:040x}"
        base = int(quote / self._prices[number])
        tx_hash = block_hash(log_index)
        return Swapped(source, log_index, tx_hash, None, rng.random() < 0.5, TRADER, base, quote, 0, None)


def make_rules(count: int, for_all: int, markets: int) -> list[AlertRule]:
    """Rules as the module says."""
    rng = Random(2)  # noqa: S311 - a workload, not a secret
    made = []
    for number in range(count + for_all):
        fields: dict[str, Any] = {"kind": "price_above", "repeat": rng.random() < 0.5}
        fields["threshold"] = f"{5 ** rng.uniform(-1, 1):.6f}"
        if number < count:
            fields["market"] = market_of(number % markets)
        kind = rng.random()
        if kind < 0.35:
            fields["kind"] = "price_below"
        elif kind >= 0.9:
            fields |= {"kind": "change", "threshold": rng.choice(("20", "50", "-30")), "windowMs": 3_600_000}
        elif kind >= 0.8:
            fields |= {"kind": "volume_spike", "threshold": "3", "windowMs": 300_000}
        elif kind >= 0.7:
            fields |= {"kind": "trade_size", "threshold": "1"}
        if fields["repeat"] and fields["kind"] != "trade_size":
            fields["hysteresis"] = "5"
        made.append(AlertRule(f"r{number}", AlertCondition.parse(fields), 1, START_MS))
    return made


class Spent(NamedTuple):
    """Seconds on the clock, Redis included, and of our own CPU."""

    wall_s: float
    cpu_s: float


class Stream:
    """One stream, followed as the follower does it."""

    def __init__(self, database: Database, chain_id: int) -> None:
        self.keys = Keys(chain_id)
        self._database = database
        self._store = RedisStore(database, self.keys, BY, OutboxBounds(50_000, 50_000_000))
        rules = RedisAlertRules(database, self.keys)
        self._book = AlertBook(rules, self._store, SystemClock(), self._settled)
        self._states: dict[MarketId, Any] = {}
        self._state: StreamState | None = None
        self.fired = 0

    async def _settled(self) -> None:
        """Nothing is under way."""

    async def begin(self, rules: list[AlertRule]) -> None:
        """Create the stream and its rules."""
        for rule in rules:
            await self._database.run("HSET", self.keys.alerts, rule.id, encode_rule(rule))
        base = BlockRef(0, block_hash(0), block_hash(0), START_MS)
        await self._store.initialise(ChainIdentity(self.keys.chain_id, base.hash), base, {}, 1)
        stored = await self._store.load()
        assert stored
        self._state = stored.state
        self._state.head = await self._store.take_over(stored.state.head, 2, resync_owed=False)
        self._state.resync_owed = False
        self._state.window = deque(self._state.window)

    async def process(self, facts: BlockFacts) -> Spent:
        """Commit a block."""
        started, cpu = perf_counter(), process_time()
        state = self._state
        assert state
        await self._book.refresh()
        resolved: Resolved = resolve_blocks(state, [facts], TOKENS, BY)
        markets = {market: self._states[market] for market in resolved.touched() - resolved.created.keys()}
        watch = await self._book.watch(markets, facts.block, state.head.timestamp)
        changes = process_blocks(state, markets, resolved, BY, live=True, undoable=True, watch=watch)
        changes.head = await self._store.commit(changes)
        state.apply(changes)
        self._states.update(changes.states)
        self._book.follow(changes)
        self.fired += len(changes.alerts)
        return Spent(perf_counter() - started, process_time() - cpu)


TOKENS: dict[Address, TokenInfo] = {}


async def measure(url: str, options: argparse.Namespace) -> dict[str, Any]:
    """Both streams, in turns."""
    TOKENS.update(
        {Address(market_of(n)): TokenInfo(18, f"Token {n}", f"T{n}") for n in range(options.markets)}
    )
    database = Database.connect(url, 10.0)
    bare, watched = Stream(database, 1), Stream(database, 2)
    await bare.begin([])
    await watched.begin(make_rules(options.rules, options.for_all, options.markets))
    tape = Tape(options.markets, options.trades)
    spent: dict[Stream, list[Spent]] = {bare: [], watched: []}
    before = 0
    for number in range(WARM_UP + options.blocks):
        before = watched.fired if number == WARM_UP else before
        facts = tape.next()
        for stream in (bare, watched) if number % 2 else (watched, bare):
            took = await stream.process(facts)
            if number >= WARM_UP:
                spent[stream].append(took)
        if number % 50 == 0:
            gc.collect()
    await database.close()
    return {
        "rules": options.rules,
        "for_all": options.for_all,
        "trades_a_block": options.trades,
        "markets": options.markets,
        "blocks": options.blocks,
        "wall": compare([took.wall_s for took in spent[bare]], [took.wall_s for took in spent[watched]]),
        "cpu": compare([took.cpu_s for took in spent[bare]], [took.cpu_s for took in spent[watched]]),
        "alerts_a_block": round((watched.fired - before) / options.blocks, 2),
        "refresh_s": REFRESH_S,
        "machine": machine(),
    }


def compare(without: list[float], with_rules: list[float]) -> dict[str, float]:
    """Medians in milliseconds, and the share that is added: of the median block, and block by block."""
    medians = statistics.median(without), statistics.median(with_rules)
    pairs = [more / less - 1 for less, more in zip(without, with_rules, strict=True)]
    return {
        "median_ms_without": round(medians[0] * 1000, 3),
        "median_ms_with": round(medians[1] * 1000, 3),
        "added_to_median": round(medians[1] / medians[0] - 1, 4),
        "median_added": round(statistics.median(pairs), 4),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rules", type=int, default=10_000)
    parser.add_argument("--for-all", type=int, default=0, help=f"rules for all markets, up to {MOST_FOR_ALL}")
    parser.add_argument("--blocks", type=int, default=600)
    parser.add_argument("--trades", type=int, default=100)
    parser.add_argument("--markets", type=int, default=200)
    options = parser.parse_args()
    spare_collector()
    with tempfile.TemporaryDirectory() as directory:
        valkey = start_valkey(Path(directory))
        try:
            url = f"redis://127.0.0.1:{valkey.port}/0"
            print(json.dumps(asyncio.run(measure(url, options)), indent=2))
        finally:
            valkey.stop()


if __name__ == "__main__":
    main()

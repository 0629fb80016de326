"""A backend that keeps the contract to the letter, and the link to it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final

import orjson

from listener.application.errors import BackendRefused, BackendUnavailable
from listener.application.interfaces import Message
from listener.application.services.publisher import LOST_REASON
from listener.infrastructure.redis.codec import candle_fields, encode_trade, stats_fields
from listener.infrastructure.redis.commands import market_item
from tests.fakes.store import FakeStore
from tests.simulation.loop import Process, SimFailure
from tests.simulation.node import fail

if TYPE_CHECKING:
    from tests.simulation.world import World

ACK_TIMEOUT_S: Final = 5.0
REFERENCES: Final = frozenset({"chart_data", "market_data"})

Item = Mapping[str, Any]


@dataclass(frozen=True)
class BackendFaults:
    """What may go wrong with the backend, each a share of messages unless it says otherwise.

    Attributes:
        lost: handled, but not acknowledged.
        slow: handled and acknowledged after a while, perhaps too late.
        refuse: not handled, and said so.
        away: how often it is away for a while.
    """

    lost: float = 0
    slow: float = 0
    refuse: float = 0
    away: int = 0


@dataclass
class View:
    """What a reader knows: market records, trades by market and id, candles, 24 h figures."""

    records: dict[str, Item] = field(default_factory=dict)
    trades: dict[str, dict[tuple[int, int], Item]] = field(default_factory=dict)
    candles: dict[tuple[str, str, int], Item] = field(default_factory=dict)
    stats: dict[str, Item] = field(default_factory=dict)

    @classmethod
    def of(cls, store: FakeStore, intervals_ms: Mapping[str, int]) -> "View":
        """What the store holds."""
        view = cls({market: market_item(record) for market, record in store.markets.items()})
        for market, trades in store.trades.items():
            for trade in trades:
                view.add_trade(orjson.loads(encode_trade(trade, store.markets[market])))
        for (market, interval), series in store.series.items():
            for time, candle in series.items():
                view.candles[market, interval, time] = {
                    "s": market,
                    "i": interval,
                    **candle_fields(candle, store.markets[market]),
                    "T": time + intervals_ms[interval] - 1,
                }
        for market, stats in store.figures.items():
            view.stats[market] = {"s": market, **stats_fields(stats, store.markets[market])}
        return view

    def add_trade(self, item: Item) -> None:
        """A trade, known or not."""
        self.trades.setdefault(item["s"], {})[item["b"], item["li"]] = item

    def newest(self, market: str, count: int) -> list[Item]:
        """The newest trades, newest first."""
        trades = self.trades.get(market, {})
        return [trades[place] for place in sorted(trades, reverse=True)[:count]]


class Consumer:
    """The backend: drops what it has seen by (epoch, seq), and reads the store again when told to.

    Attributes:
        away: refuses connections.
        seen: number of the last row that was handled.
        life: how often it was restarted; messages under way do not outlive a connection.
        alerts: told and not taken back, by id and block hash.
        missed_alerts: rows went that nobody had sent yet, or the backend forgot what it had got.
    """

    def __init__(self, world: "World") -> None:
        self._world = world
        self.away = False
        self.seen = (0, 0)
        self.life = 0
        self.view = View()
        self.alerts: dict[tuple[str, str], Item] = {}
        self.missed_alerts = False
        self._fresh = False
        self._rows_were_lost = False
        self._known: dict[tuple[int, int], tuple[object, ...]] = {}

    def handle(self, message: Message) -> None:
        """One message, perhaps again."""
        number = (message.epoch, message.seq)
        self._world.note("backend", message.event, message.epoch, message.first, message.seq)
        if {"reason": LOST_REASON} in message.items:
            self._rows_were_lost = self.missed_alerts = True
        if message.event != "resync" and not self._rows_were_lost and not self._world.store.lost_tail:
            self._compare(message)
        if number <= self.seen:
            return
        if self._fresh:
            self._read_store()
        else:
            self._expect_next(message)
        self.seen = number
        take = self._take_alert if message.event == "alert" else partial(self._take, message.event)
        for item in message.items:
            take(item)

    def restart(self) -> None:
        """Forget everything, and read the store before the first message."""
        self.away = False
        self.life += 1
        self.seen = (0, 0)
        self._fresh = self.missed_alerts = True

    def _read_store(self) -> None:
        self._fresh = False
        self.view = View.of(self._world.store.market, self._world.intervals_ms)

    def _compare(self, message: Message) -> None:
        """The same number is always for the same rows, as long as none of them was lost."""
        content = None if message.event in REFERENCES else tuple(map(orjson.dumps, message.items))
        rows = (message.event, message.first, content)
        known = self._known.setdefault((message.epoch, message.seq), rows)
        if known != rows:
            raise SimFailure(f"{message} came after {known}")

    def _expect_next(self, message: Message) -> None:
        """Nothing is left out, and nothing comes twice unless the store forgot that it was sent."""
        epoch, seq = self.seen
        if message.epoch > epoch and message.first != 1:
            raise SimFailure(f"a new epoch began with {message}")
        if message.event == "resync":
            return
        early = message.first <= seq and self._world.store.lost_tail
        if message.epoch == epoch and message.first != seq + 1 and not early:
            raise SimFailure(f"after row {self.seen} came {message}")

    def _take(self, event: str, item: Any) -> None:
        view = self.view
        match event:
            case "trade_update":
                view.add_trade(item)
            case "chart_data":
                _put(view.candles, (item["s"], item["i"], item["t"]), item)
            case "market_data":
                _put(view.stats, item["s"], item)
            case "market_created" | "market_graduated":
                _put(view.records, item["s"], item)
            case "reorg":
                for trades in view.trades.values():
                    for place in [place for place in trades if place[0] > item["ancestor"]["number"]]:
                        del trades[place]
            case "resync":
                self._read_store()
            case "candles_closed":
                pass
            case _:
                raise SimFailure(f"an event that the contract does not know: {event}")

    def _take_alert(self, item: Item) -> None:
        """One that is taken back was told before."""
        key = item["id"], item["bh"]
        if item.get("retracted"):
            self.alerts.pop(key, None)
        else:
            self.alerts[key] = item


def _put(items: dict[Any, Item], key: object, item: Item) -> None:
    if item.get("deleted"):
        items.pop(key, None)
    else:
        items[key] = item


class BackendLink:
    """`UpdatePublisher` of one process."""

    def __init__(self, process: Process, world: "World") -> None:
        self._process = process
        self._world = world
        self._rng = Random(world.rng.random())

    async def open(self) -> None:
        """See `UpdatePublisher.open`."""
        self._world.check_alive(self._process)
        if self._world.consumer.away:
            raise BackendUnavailable("away")

    async def send(self, message: Message) -> None:
        """See `UpdatePublisher.send`."""
        world, draw = self._world, self._rng.random
        world.check_alive(self._process)
        faults = world.plan.faults.backend
        answered: asyncio.Future[None] = world.loop.create_future()
        if world.consumer.away:
            raise BackendUnavailable("away")
        delay_s, acknowledged = 0.005, True
        if world.faulty:
            if draw() < faults.refuse:
                world.later(delay_s, fail, answered, BackendRefused("no"))
                return await answered
            acknowledged = draw() >= faults.lost
            if draw() < faults.slow:
                delay_s += 2 * ACK_TIMEOUT_S * draw()
        if not acknowledged or delay_s > ACK_TIMEOUT_S:
            world.later(ACK_TIMEOUT_S, fail, answered, BackendUnavailable("no acknowledgement"))
        life = world.consumer.life
        world.later(delay_s, self._deliver, message, life, answered if acknowledged else None)
        return await answered

    def size(self, message: Message) -> int:
        """See `UpdatePublisher.size`."""
        return len(orjson.dumps(list(message.items)))

    def _deliver(self, message: Message, life: int, answered: "asyncio.Future[None] | None") -> None:
        if self._world.consumer.away or self._world.consumer.life != life:
            if answered:
                fail(answered, BackendUnavailable("disconnected"))
            return
        self._world.consumer.handle(message)
        if answered and not answered.done():
            answered.set_result(None)

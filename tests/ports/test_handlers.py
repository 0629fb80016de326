"""Handlers of the library on a real Valkey: in order, at least once, each on its own."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from listener import (
    AlertRetracted,
    AlertTriggered,
    Event,
    Listener,
    MarketCreated,
    ReorgDetected,
    Resync,
    StatsUpdated,
    TradeProcessed,
)
from listener.application.errors import HandlerStopped, InvalidConfiguration
from listener.application.interfaces import RowId
from listener.library import BATCH
from tests.fakes.build import created, swap, token
from tests.ports.handling import KEYS, SOON_S, begun, delivered, running, settings_of, stream, trade, until
from tests.ports.sides import Side


@pytest.fixture(autouse=True)
def no_settings_of_our_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No `.env` takes part."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
async def side(valkey_port: int) -> AsyncIterator[Side]:
    """A stream with two markets."""
    async with stream(valkey_port) as side:
        yield side


@pytest.fixture
def app(valkey_port: int, side: Side) -> Listener:  # noqa: ARG001 - the stream must be there
    """An application without handlers."""
    return Listener(settings_of(valkey_port))


async def told(side: Side) -> list[str]:
    """Ids of all trades in the outbox."""
    rows = await side.outbox.read(RowId(0, 0), 100_000)
    return [orjson.loads(row.data)["id"] for row in rows if row.event == "trade_update"]


def ids(events: Iterable[Any]) -> list[str]:
    """Ids of trades that were handled."""
    return [event.trade.id for event in events]


async def test_in_order_once_and_typed(side: Side, app: Listener) -> None:
    """A handler gets each event of its types, in the order of commits, as exact values with a key each."""
    seen: list[Event] = []

    @app.on(TradeProcessed, MarketCreated, start="oldest")
    async def collect(event: TradeProcessed | MarketCreated) -> None:
        seen.append(event)

    async with running(app):
        await trade(side, 30, 5)
        expected = await told(side)
        await until(lambda: len(seen) >= len(expected) + 2)
    trades = [event for event in seen if isinstance(event, TradeProcessed)]
    assert ids(trades) == expected
    places = [(event.epoch, event.seq) for event in seen]
    assert places == sorted(places)
    assert len({event.key for event in seen}) == len(seen)
    newest = orjson.loads((await side.admin.lrange(KEYS.trades(token(0)), 0, 0))[0])
    last = next(event.trade for event in reversed(trades) if event.trade.market == token(0))
    assert last.price == Decimal(newest["p"])
    assert (last.base, last.quote, last.side) == (Decimal(newest["v"]), Decimal(newest["q"]), newest["side"])
    assert (last.time, last.block, last.block_hash) == (newest["t"], newest["b"], newest["bh"])
    markets = [event.market for event in seen if isinstance(event, MarketCreated)]
    assert [market.id for market in markets] == [token(0), token(1)]
    assert (markets[0].symbol, markets[0].base_decimals) == ("T0", 18)


async def test_a_new_name_begins_now_and_goes_on_where_it_was(side: Side, valkey_port: int) -> None:
    """Without a place a handler gets what comes; with one, what came while no process ran, and no more."""
    seen: list[TradeProcessed] = []

    def make() -> Listener:
        app = Listener(settings_of(valkey_port))

        @app.on(TradeProcessed, name="store")
        async def store(event: TradeProcessed) -> None:
            seen.append(event)

        return app

    before = len(await told(side))
    async with running(make()):
        await begun(side, "store")
        await trade(side, 3)
        await until(lambda: len(seen) == 6)
    await trade(side, 3)
    async with running(make()):
        await until(lambda: len(seen) >= 12)
    assert ids(seen) == (await told(side))[before:]


async def test_a_crash_repeats_under_the_same_keys(side: Side, valkey_port: int) -> None:
    """Cancelled in mid-batch, again and again: nothing is left out, what comes twice has its key."""
    seen: list[TradeProcessed] = []
    crash = asyncio.Event()

    def make() -> Listener:
        app = Listener(settings_of(valkey_port))

        @app.on(TradeProcessed, name="store", start="oldest", batch=20)
        async def store(event: TradeProcessed) -> None:
            seen.append(event)
            if len(seen) % 37 == 0:
                crash.set()
                await asyncio.sleep(SOON_S)

        return app

    await trade(side, 25, 6)
    expected = await told(side)
    while {event.trade.id for event in seen} != set(expected):
        crash.clear()
        async with running(make()):
            await until(lambda: crash.is_set() or {event.trade.id for event in seen} == set(expected))
    once = dict.fromkeys((event.key, event.trade) for event in seen)
    assert [held.id for _, held in once] == expected
    assert len({key for key, _ in once}) == len(expected)
    assert len(seen) > len(expected), "no event came twice: the test shows nothing"


async def test_a_failing_handler_is_tried_again_reported_and_passed_over(side: Side, app: Listener) -> None:
    """An event is given up after its attempts; the next ones are handled, another handler is not held up."""
    attempts: list[str] = []
    good: list[TradeProcessed] = []

    @app.on(TradeProcessed, attempts=3, start="oldest")
    async def picky(event: TradeProcessed) -> None:
        attempts.append(event.trade.id)
        if event.trade.id == bad:
            raise ValueError("no")

    @app.on(TradeProcessed, start="oldest")
    async def plain_one(event: TradeProcessed) -> None:
        good.append(event)

    await trade(side, 2)
    expected = await told(side)
    bad = expected[2]
    async with running(app):
        await until(lambda: len(good) == len(expected))
        await until(lambda: app.status()["picky"].handled == len(expected) - 1)
    assert attempts == [*expected[:2], bad, bad, bad, *expected[3:]]
    status = app.status()["picky"]
    assert (status.failed, status.skipped, status.stopped) == (2, 1, False)
    assert app.status()["plain_one"] == (len(expected), 0, 0, False)


async def test_a_handler_that_stops_keeps_its_place(side: Side, valkey_port: int) -> None:
    """With `stop`, the event that failed is the first that the next process gets; others go on meanwhile."""
    await trade(side, 2)
    expected = await told(side)
    broken = True
    strict_got: list[str] = []
    other_got: list[str] = []

    def make() -> Listener:
        app = Listener(settings_of(valkey_port))

        @app.on(TradeProcessed, attempts=1, on_error="stop", start="oldest")
        async def strict(event: TradeProcessed) -> None:
            if broken and event.trade.id == expected[3]:
                raise ValueError("no")
            strict_got.append(event.trade.id)

        @app.on(TradeProcessed, start="oldest")
        async def other(event: TradeProcessed) -> None:
            other_got.append(event.trade.id)

        return app

    first = make()
    async with running(first):
        await until(lambda: first.status()["strict"].stopped)
        await trade(side)
        await until(lambda: len(other_got) == len(expected) + 2)
    assert strict_got == expected[:3]
    broken = False
    async with running(make()):
        await until(lambda: (len(strict_got)) >= 3 + len(expected) + 2)
    assert strict_got[3:] == await told(side), "the batch is delivered again, and then what came"


async def test_the_last_handler_that_stops_ends_consume(side: Side, app: Listener) -> None:
    """A process that does nothing any more says so instead of looking alive."""

    @app.on(TradeProcessed, attempts=1, on_error="stop", start="oldest")
    async def strict(event: TradeProcessed) -> None:
        raise ValueError(event.key)

    await trade(side)
    with pytest.raises(HandlerStopped, match="strict"):
        async with asyncio.timeout(SOON_S):
            await app.consume()


async def test_a_handler_that_hangs_is_bounded(side: Side, app: Listener) -> None:
    """It is cancelled when its time is up, and so is one whose own waiting was cancelled by somebody else."""
    await trade(side)
    first, second, *rest = await told(side)
    got: list[str] = []

    @app.on(TradeProcessed, attempts=1, timeout_s=0.2, start="oldest")
    async def slow(event: TradeProcessed) -> None:
        if event.trade.id == first:
            await asyncio.Event().wait()
        if event.trade.id == second:
            raise asyncio.CancelledError
        got.append(event.trade.id)

    async with running(app):
        await until(lambda: len(got) == len(rest))
    assert got == rest
    assert app.status()["slow"].skipped == 2


async def test_a_slow_handler_misses_rows_and_is_told(side: Side, app: Listener) -> None:
    """Rows that fell off before they were handled become one `Resync`, in their place."""
    got: list[Event] = []
    go_on = asyncio.Event()

    @app.on(TradeProcessed, Resync, timeout_s=SOON_S)
    async def slow(event: TradeProcessed | Resync) -> None:
        got.append(event)
        await go_on.wait()

    async with running(app):
        await begun(side, "slow")
        await trade(side)
        await until(lambda: bool(got))
        await trade(side, 20)
        await side.admin.xtrim(KEYS.outbox, maxlen=9, approximate=False)
        kept = await told(side)
        go_on.set()
        await until(
            lambda: bool(got) and isinstance(got[-1], TradeProcessed) and got[-1].trade.id == kept[-1]
        )
    kinds = [type(event) for event in got]
    assert kinds.count(Resync) == 1
    after = kinds.index(Resync) + 1
    assert ids(got[after:]) == kept
    places = [(event.epoch, event.seq) for event in got]
    assert places == sorted(places)


async def test_reorgs_and_figures(side: Side, app: Listener) -> None:
    """A rollback is told before what takes its place; figures are those in Redis, None if none are left."""
    got: list[Any] = []

    @app.on(TradeProcessed, ReorgDetected, StatsUpdated)
    async def view(event: Event) -> None:
        got.append(event)

    async with running(app):
        await begun(side, "view")
        await trade(side, 2, 1)
        side.writer.chain.mine(created(2), swap(2))
        await side.writer.follow()
        ancestor = side.writer.chain.fork(2)
        await side.writer.roll_back(ancestor.number)
        await trade(side, 1, 1)
        await until(lambda: delivered(side, "view"))
    [reorg] = [event for event in got if isinstance(event, ReorgDetected)]
    assert (reorg.ancestor, reorg.ancestor_hash, reorg.depth) == (ancestor.number, ancestor.hash, 2)
    assert token(2) in reorg.markets
    stored = await side.admin.hgetall(KEYS.stats(token(0)))
    stats = [event for event in got if isinstance(event, StatsUpdated) and event.market == token(0)][-1].stats
    assert stats
    assert (stats.last_price, stats.count) == (Decimal(stored[b"lastPrice"].decode()), int(stored[b"count"]))
    gone = [event for event in got if isinstance(event, StatsUpdated) and event.market == token(2)]
    assert gone[-1].stats is None


async def test_alerts_and_their_retraction(side: Side, app: Listener) -> None:
    """An `alert` row is `AlertTriggered`; the same record retracted is of another type."""
    got: list[AlertTriggered | AlertRetracted] = []

    @app.on(AlertTriggered, AlertRetracted)
    async def notify(event: AlertTriggered | AlertRetracted) -> None:
        got.append(event)

    record = {
        "id": "r1-7-3",
        "rule": "r1",
        "kind": "change",
        "s": token(0),
        "b": 7,
        "bh": "0x" + "1" * 64,
        "t": 1_767_571_200_000,
        "trade": "7-3",
        "value": "12.5",
        "threshold": "10",
        "windowMs": 300_000,
    }
    created_only = {key: record[key] for key in ("id", "rule", "kind", "s", "b", "bh", "t")}
    async with running(app):
        await begun(side, "notify")
        head = side.writer.state.head
        for seq, row in enumerate((record, record | {"retracted": True}, created_only), head.seq + 1):
            await side.admin.xadd(KEYS.outbox, {"e": "alert", "d": orjson.dumps(row)}, f"{head.epoch}-{seq}")
        await until(lambda: len(got) == 3)
    assert [type(event) for event in got] == [AlertTriggered, AlertRetracted, AlertTriggered]
    assert got[0].alert == got[1].alert
    assert got[0].alert.value == Decimal("12.5")
    assert (got[0].alert.window_ms, got[0].alert.trade, got[2].alert.trade) == (300_000, "7-3", None)


async def test_two_processes_of_one_name(side: Side, valkey_port: int) -> None:
    """Of two processes one gets the events; when it ends the other goes on, and no event comes twice."""
    got: list[list[str]] = [[], []]

    def make(number: int) -> Listener:
        app = Listener(settings_of(valkey_port))

        @app.on(TradeProcessed, name="store")
        async def store(event: TradeProcessed) -> None:
            got[number].append(event.trade.id)

        return app

    before = len(await told(side))
    async with running(make(1)):
        await begun(side, "store")
        async with running(make(0)):
            await trade(side, 5)
            await until(lambda: len(got[1]) == 10)
            assert got[0] == []
        await until(partial(side.admin.exists, KEYS.lease_of("handler:store")))
    async with running(make(0)):
        await trade(side, 5)
        await until(lambda: len(got[0]) >= 10)
    assert got[1] + got[0] == (await told(side))[before:]


async def test_connections_break(side: Side, app: Listener) -> None:
    """A broken link to Redis is waited out: nothing is left out, and the handler is not called in vain."""
    got: list[str] = []
    ours = {client["id"] for client in await side.admin.client_list()}

    @app.on(TradeProcessed)
    async def store(event: TradeProcessed) -> None:
        got.append(event.trade.id)

    before = len(await told(side))
    async with running(app):
        await begun(side, "store")
        await trade(side, 2)
        await until(lambda: len(got) == 4)
        for client in await side.admin.client_list():
            if client["id"] not in ours:
                await side.admin.client_kill_filter(_id=client["id"])
        await trade(side, 2)
        await until(lambda: len(got) >= 8)
    assert list(dict.fromkeys(got)) == (await told(side))[before:]
    assert app.status()["store"].failed == 0


async def test_more_than_a_batch(side: Side, app: Listener) -> None:
    """A block of more rows than are delivered together is handled whole."""
    got: list[str] = []

    @app.on(TradeProcessed)
    async def store(event: TradeProcessed) -> None:
        got.append(event.trade.id)

    async with running(app):
        await begun(side, "store")
        before = len(await told(side))
        await trade(side, 1, BATCH + 50)
        await until(lambda: len(got) == BATCH + 50)
    assert got == (await told(side))[before:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "with space"}, "letters"),
        ({"attempts": 0}, "attempts"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"on_error": "explode"}, "on_error"),
        ({"start": "yesterday"}, "start"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    """A mistake is told where it is made, with what would be right."""
    app = Listener()

    async def handler(event: TradeProcessed) -> None:
        raise AssertionError(event)

    with pytest.raises(InvalidConfiguration, match=message):
        app.on(TradeProcessed, **options)(handler)
    app.on(TradeProcessed)(handler)
    with pytest.raises(InvalidConfiguration, match="two handlers"):
        app.on(TradeProcessed)(handler)
    with pytest.raises(InvalidConfiguration, match="types"):
        app.on(Event, name="all")(handler)
    with pytest.raises(InvalidConfiguration, match="async def"):
        app.on(TradeProcessed, name="sync")(print)  # type: ignore[arg-type]


async def test_settings_that_the_gateway_would_not_see() -> None:
    """`run` with settings made in code does not start a gateway that reads other ones."""
    app = Listener(settings_of(1))

    @app.on(TradeProcessed)
    async def handler(event: TradeProcessed) -> None:
        raise AssertionError(event)

    with pytest.raises(InvalidConfiguration, match="gateway_enabled"):
        await app.run()
    with pytest.raises(InvalidConfiguration, match="no handler"):
        await Listener(settings_of(1)).consume()

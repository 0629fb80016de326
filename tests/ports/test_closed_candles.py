"""Closed candles told one by one: each complete, none left out, corrected after reorgs, through crashes."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from listener import Candle, CandleClosed, CandleRemoved, CandlesClosed, CandleUpdated, Listener
from listener.domain.value_objects import MINUTE_MS, Interval
from tests.fakes.build import ETHER, created, swap, token
from tests.ports.handling import KEYS, begun, delivered, running, settings_of, stream, until
from tests.ports.sides import Side

Series = dict[tuple[str, str, int], Candle]

STEPS = 60
MARKETS = 3


@pytest.fixture(autouse=True)
def no_settings_of_our_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No `.env` takes part."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
async def side(valkey_port: int) -> AsyncIterator[Side]:
    """A stream with two markets."""
    async with stream(valkey_port) as side:
        yield side


async def stored(side: Side) -> Series:
    """Every candle in Redis that is closed."""
    closed = {name.decode(): int(up_to) for name, up_to in (await side.admin.hgetall(KEYS.closed)).items()}
    found: Series = {}
    for number in range(MARKETS):
        for name, up_to in closed.items():
            for member in await side.admin.zrange(KEYS.candles(token(number), name), 0, -1):
                candle = msgspec.convert(orjson.loads(member), Candle)
                if candle.open_time + Interval.parse(name).ms - 1 <= up_to:
                    found[token(number), name, candle.open_time] = candle
    return found


async def close_all(side: Side) -> None:
    """A block two days later: every candle that has a trade is closed."""
    side.writer.chain.mine(after_ms=2 * 24 * 60 * MINUTE_MS)
    await side.writer.follow()


async def test_each_candle_once_when_it_is_complete(side: Side, valkey_port: int) -> None:
    """Without crashes and reorgs: every closed candle exactly once, final, before the watermark says so."""
    app = Listener(settings_of(valkey_port))
    got: list[CandleClosed] = []
    watermarks: dict[str, int] = {}

    @app.on(CandleClosed, CandlesClosed, start="oldest")
    async def store(event: CandleClosed | CandlesClosed) -> None:
        if isinstance(event, CandlesClosed):
            watermarks[event.interval] = event.up_to
        else:
            assert event.candle.open_time > watermarks.get(event.interval, -1)
            got.append(event)

    async with running(app):
        for number in range(40):
            side.writer.chain.mine(swap(number % 2, ETHER, ETHER + number), after_ms=MINUTE_MS // 3)
            await side.writer.follow()
        await close_all(side)
        await until(lambda: delivered(side, "store"))
    assert app.status()["store"].failed == 0
    assert not any(event.corrected for event in got)
    found = {(event.market, event.interval, event.candle.open_time): event.candle for event in got}
    assert len(found) == len(got)
    assert found == await stored(side)
    assert len(found) > 30


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_through_reorgs_and_crashes(side: Side, valkey_port: int, seed: int) -> None:
    """What a handler has stored ends as the closed candles in Redis, whatever was undone or broken off."""
    dice = random.Random(seed)
    view: Series = {}
    seen: dict[str, Any] = {}

    def make() -> Listener:
        app = Listener(settings_of(valkey_port))

        @app.on(CandleClosed, CandleRemoved, name="store", start="oldest", batch=dice.choice([1, 7, 50]))
        async def store(event: CandleClosed | CandleRemoved) -> None:
            seen[event.key] = event
            if isinstance(event, CandleRemoved):
                view.pop((event.market, event.interval, event.open_time), None)
            else:
                view[event.market, event.interval, event.candle.open_time] = event.candle
            if dice.random() < 0.1:
                await asyncio.sleep(0.01)

        return app

    chain, writer = side.writer.chain, side.writer
    chain.mine(created(2))
    await writer.follow()
    for _ in range(6):
        async with running(make()):
            for _ in range(STEPS // 6):
                below = [block.number for block in writer.state.recent()][:-1]
                if dice.random() < 0.2 and below:
                    chain.fork(writer.state.head.number - (ancestor := dice.choice(below[-3:])))
                    await writer.roll_back(ancestor)
                else:
                    trades = [
                        swap(dice.randrange(MARKETS), ETHER, dice.randrange(1, 9) * ETHER)
                        for _ in range(dice.randrange(4))
                    ]
                    chain.mine(*trades, after_ms=dice.choice([1_000, 20_000, MINUTE_MS, 7 * MINUTE_MS]))
                    await writer.follow()
                await asyncio.sleep(dice.choice([0, 0.005, 0.02]))
    await close_all(side)
    async with running(make()):
        await until(lambda: delivered(side, "store"))
    assert view == await stored(side)
    closed = [event for event in seen.values() if isinstance(event, CandleClosed)]
    first = [(e.market, e.interval, e.candle.open_time) for e in closed if not e.corrected]
    assert len(first) == len(set(first)), "a candle was told closed twice, under two keys"
    assert any(event.corrected for event in closed)


async def test_what_is_open_and_a_new_name(side: Side, valkey_port: int) -> None:
    """A candle is told as it changes; a handler that is new is told those closed that it has heard of."""
    app = Listener(settings_of(valkey_port))
    updates: list[CandleUpdated] = []
    closed: list[CandleClosed] = []

    @app.on(CandleUpdated)
    async def live(event: CandleUpdated) -> None:
        updates.append(event)

    @app.on(CandleClosed)
    async def final(event: CandleClosed) -> None:
        closed.append(event)

    async with running(app):
        await begun(side, "live", "final")
        side.writer.chain.mine(swap(0, ETHER, 5 * ETHER), after_ms=MINUTE_MS)
        await side.writer.follow()
        await until(lambda: len(updates) >= 3)
        assert closed == []
        assert {event.interval for event in updates} == {"1m", "5m", "1d"}
        await close_all(side)
        await until(lambda: delivered(side, "final"))
    assert {(event.market, event.interval) for event in closed} == {
        (token(0), interval) for interval in ("1m", "5m", "1d")
    }
    assert [event.candle.trades for event in closed if event.interval == "1m"] == [1]
    day = next(event.candle for event in closed if event.interval == "1d")
    assert day.trades > 1, "trades from before the handler was new belong to the candle"

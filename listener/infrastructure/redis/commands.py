"""A change set as the commands and outbox rows of its one atomic commit."""

from collections import defaultdict
from collections.abc import Iterable

import orjson

from listener.application.state import ChangeSet, Head, Rules
from listener.domain.entities import Market, Trade
from listener.domain.events import (
    CandlesClosed,
    CandleUpdated,
    DomainEvent,
    HistoryLoaded,
    MarketCreated,
    MarketGraduated,
    MarketRemoved,
    MarketRestored,
    ReorgDetected,
    StatsUpdated,
    TradeProcessed,
)
from listener.domain.value_objects import MarketId
from listener.infrastructure.redis.client import Command, Word
from listener.infrastructure.redis.codec import (
    encode_candle,
    encode_trade,
    encode_undo,
    market_fields,
    stats_fields,
)
from listener.infrastructure.redis.keys import Keys

RowData = tuple[str, bytes]

LISTED = 4_000
"""A larger reorg names the first so many of each, and a `resync` follows: messages have a limit."""
CANDLES_PER_ROW = 50
"""A row that refers to more candles would make messages that cannot be split."""


def commands(changes: ChangeSet, keys: Keys) -> list[Command]:
    """What the commit writes. The head comes last: if Redis refuses a command in between (a key of another
    type, say), the head still tells that the commit is not done."""  # noqa: D205, D209 - one thought
    written: list[Command] = list(_trades(changes, keys))
    written += _candles(changes, keys)
    for market_id, stats in changes.stats.items():
        key = keys.stats(market_id)
        if stats is None:
            written.append(("DEL", key))
            continue
        if stats.window is None:
            written.append(("HDEL", key, "weightedAvgPrice"))
        written.append(("HSET", key, *_flat(stats_fields(stats, changes.market(market_id)))))
    for market_id, record in changes.records.items():
        written.append(("HSET", keys.market(market_id), *_flat(market_fields(record))))
    for market in changes.created.values():
        written.append(("ZADD", keys.markets, market.created_at, market.id))
        written.append(("HSET", keys.sources, market.source, market.id))
    for market in changes.removed.values():
        written.append(("DEL", keys.market(market.id)))
        written.append(("ZREM", keys.markets, market.id))
        written.append(("HDEL", keys.sources, market.source))
    for market_id, due in changes.due.items():
        written.append(("ZREM", keys.due, market_id) if due is None else ("ZADD", keys.due, due, market_id))
    if changes.closed:
        written.append(("HSET", keys.closed, *_flat(changes.closed)))
    written += _undo(changes, keys)
    if changes.reason or not changes.live:
        written.append(("HSET", keys.settings, "owed", int(not changes.live)))
    written.append(_head(changes.head, keys))
    return written


def _head(head: Head, keys: Keys) -> Command:
    fields: dict[str, str | int] = {
        "number": head.number,
        "hash": head.hash,
        "timestamp": head.timestamp,
        "asOf": head.as_of,
        "gen": head.gen,
    }
    return ("HSET", keys.head, *_flat(fields))


def _trades(changes: ChangeSet, keys: Keys) -> Iterable[Command]:
    by_market: defaultdict[MarketId, list[Trade]] = defaultdict(list)
    for trade in changes.trades:
        by_market[trade.market].append(trade)
    for market_id, trades in by_market.items():
        key, kept = keys.trades(market_id), changes.trades_kept[market_id]
        market = changes.market(market_id)
        newest = [encode_trade(trade, market) for trade in trades[-kept:]]
        for start in range(0, len(newest), 1000):
            yield ("LPUSH", key, *newest[start : start + 1000])
        yield ("LTRIM", key, 0, kept - 1)
    for market_id, count in changes.dropped_trades.items():
        if count:
            yield ("LTRIM", keys.trades(market_id), count, -1)


def _candles(changes: ChangeSet, keys: Keys) -> Iterable[Command]:
    for change in changes.candles:
        key = keys.candles(change.market, change.interval.name)
        if change.before is not None or changes.reorg:
            yield ("ZREMRANGEBYSCORE", key, change.open_time, change.open_time)
        if change.after is not None:
            market = changes.market(change.market)
            yield ("ZADD", key, change.open_time, encode_candle(change.after, market))
    for market_id, interval, oldest in changes.trims:
        yield ("ZREMRANGEBYSCORE", keys.candles(market_id, interval.name), "-inf", f"({oldest}")


def _undo(changes: ChangeSet, keys: Keys) -> Iterable[Command]:
    dropped = changes.undo_dropped
    for start in range(0, len(dropped), 1000):
        yield ("HDEL", keys.undo, *dropped[start : start + 1000])
    if changes.undo:
        markets = {market_id: state.market for market_id, state in changes.states.items()}
        yield ("HSET", keys.undo, changes.undo.block.number, encode_undo(changes.undo, markets))


def rows(changes: ChangeSet, rules: Rules) -> list[RowData]:
    """Outbox rows of a change set. Candles and statistics are references, read when they are sent."""
    encoded: list[RowData] = []
    touched: defaultdict[MarketId, list[tuple[str, int]]] = defaultdict(list)
    late: list[RowData] = []
    for event in changes.events(rules):
        if isinstance(event, CandleUpdated):
            touched[event.market].append((event.interval.name, event.open_time))
        elif isinstance(event, StatsUpdated):
            late.append(("market_data", event.market.encode()))
        elif isinstance(event, CandlesClosed):
            late.append(("candles_closed", orjson.dumps({"i": event.interval.name, "T": event.up_to})))
        else:
            encoded.append(_row(event))
        if isinstance(event, ReorgDetected) and max(len(event.orphaned), len(event.markets)) > LISTED:
            encoded.append(_row(HistoryLoaded("a reorg too large to be listed")))
    for market_id, mentions in touched.items():
        for start in range(0, len(mentions), CANDLES_PER_ROW):
            part = mentions[start : start + CANDLES_PER_ROW]
            encoded.append(("chart_data", orjson.dumps({"s": market_id, "c": part})))
    return encoded + late


def _row(event: DomainEvent) -> RowData:
    match event:
        case TradeProcessed(trade, market):
            return "trade_update", encode_trade(trade, market)
        case MarketCreated(market):
            return "market_created", orjson.dumps(market_item(market))
        case MarketGraduated(market) | MarketRestored(market):
            return "market_graduated", orjson.dumps(market_item(market))
        case MarketRemoved(market_id):
            return "market_created", orjson.dumps({"s": market_id, "deleted": True})
        case ReorgDetected(ancestor, orphaned, markets, earliest):
            item = {
                "ancestor": {"number": ancestor.number, "hash": ancestor.hash},
                "depth": len(orphaned),
                "orphaned": orphaned[:LISTED],
                "markets": markets[:LISTED],
                "from": earliest,
            }
            return "reorg", orjson.dumps(item)
        case HistoryLoaded(reason):
            return "resync", orjson.dumps({"reason": reason})
    raise TypeError(f"no row for {type(event).__name__}")


def market_item(market: Market) -> dict[str, str | int]:
    """A market record as an event's item."""
    return {"s": market.id, **market_fields(market)}


def _flat(fields: dict[str, str | int] | dict[str, int]) -> list[Word]:
    return [word for pair in fields.items() for word in pair]

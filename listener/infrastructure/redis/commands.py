"""A change set as the commands and outbox rows of its one atomic commit."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, pairwise
from typing import Final

import numpy as np
import orjson

from listener.application.changes import CandleBatch, ChangeSet, Head
from listener.application.rules import Rules
from listener.domain.entities import Market
from listener.domain.events import (
    AlertTriggered,
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
from listener.domain.value_objects import MarketId, TradeId
from listener.infrastructure.candle_columns import TIME
from listener.infrastructure.candle_fold import FoldedCandles
from listener.infrastructure.columns import Newest
from listener.infrastructure.redis.alert_codec import alert_item, encode_state_key
from listener.infrastructure.redis.candle_texts import encode_folded
from listener.infrastructure.redis.client import Command, Word
from listener.infrastructure.redis.codec import (
    FIGURES,
    CandleTexts,
    encode_candle,
    encode_trade,
    encode_undo,
    market_fields,
    stats_fields,
)
from listener.infrastructure.redis.fired import FIRED_KEPT
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.trade_texts import encode_newest

RowData = tuple[str, bytes]

LISTED = 4_000
"""A larger reorg names the first so many of each, and a `resync` follows: messages have a limit."""
CANDLES_PER_ROW = 50
"""A row that refers to more candles would make messages that cannot be split."""
WORDS: Final = 2_000
"""Most words of a command that could have any number: a script can pass on some 8,000."""
NOTHING: Final[Mapping[TradeId, bytes]] = {}


class Writes:
    """What a commit writes, in the parts that `apply.lua` knows.

    Attributes:
        lists: key, items kept, number of items, items.
        series: key, whether the first member takes the place of what has its score, number of words, and
            scores and members.
        figures: key, a value for each of `FIGURES`.
        commands: everything else. The head comes last: if Redis refuses something before (a key of another
            type, say), the head still tells that the commit is not done.
    """

    __slots__ = ("commands", "figures", "lists", "series")

    def __init__(self, *commands: Command) -> None:
        self.lists: list[Command] = []
        self.series: list[Command] = []
        self.figures: list[Command] = []
        self.commands = list(commands)

    def words(self) -> list[Word]:
        """Arguments of the script."""
        words: list[Word] = [len(self.lists), *chain.from_iterable(self.lists)]
        words += (len(self.series), *chain.from_iterable(self.series))
        words += (len(self.figures), len(FIGURES), *FIGURES, *chain.from_iterable(self.figures))
        words.append(len(self.commands))
        for command in self.commands:
            words.append(len(command))
            words += command
        return words


def encode_told(changes: ChangeSet) -> dict[TradeId, bytes]:
    """Trades that are told to the backend one by one, encoded: for their rows and for their lists."""
    if not changes.live:
        return {}
    return {trade.id: encode_trade(trade, changes.market(trade.market)) for trade in changes.trades}


def commands(
    changes: ChangeSet, keys: Keys, texts: CandleTexts, told: Mapping[TradeId, bytes] = NOTHING
) -> Writes:
    """What the commit writes.

    Args:
        changes: the change set.
        keys: names of the keys.
        texts: remembers candles from one commit to the next.
        told: what `encode_told` gave.
    """
    written = Writes()
    written.commands += _undo(changes, keys, texts)  # first: with newer candles, `texts` forgets these
    _write_trades(changes, keys, told, written)
    _write_candles(changes, keys, texts, written)
    _write_figures(changes, keys, written)
    _write_alerts(changes, keys, written)
    written.commands += _registry(changes, keys)
    written.commands += _alert_states(changes, keys)
    if changes.closed:
        written.commands.append(("HSET", keys.closed, *_flat(changes.closed)))
    if changes.reason or not changes.live:
        written.commands.append(("HSET", keys.settings, "owed", int(not changes.live)))
    written.commands.append(_head(changes.head, keys))
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


def _write_trades(changes: ChangeSet, keys: Keys, told: Mapping[TradeId, bytes], written: Writes) -> None:
    """The newest trades of each market; those that would be cut off at once are not encoded."""
    bulk = {market_id: trades for market_id, trades in changes.newest.items() if isinstance(trades, Newest)}
    encoded = dict(zip(bulk, encode_newest(list(bulk.values())), strict=True))
    for market_id, trades in changes.newest.items():
        key, kept = keys.trades(market_id), changes.trades_kept[market_id]
        texts = encoded.get(market_id) or [
            told.get(trade.id) or encode_trade(trade, changes.market(market_id)) for trade in trades[-kept:]
        ]
        written.lists += ((key, kept, len(part), *part) for part in _parts(texts))
    for market_id, count in changes.dropped_trades.items():
        if count:
            written.commands.append(("LTRIM", keys.trades(market_id), count, -1))


def _write_candles(changes: ChangeSet, keys: Keys, texts: CandleTexts, written: Writes) -> None:
    """Candles go with what they replace; new ones of a series go together."""
    undoable = changes.undo is not None and bool(changes.undo.markets)
    known: MarketId | None = None
    for market_id, interval, open_time, after, before in changes.candles:
        if market_id != known:
            known, prefix, state = market_id, keys.candles(market_id, ""), changes.states.get(market_id)
        key = prefix + interval.name
        if after is None or state is None:
            written.commands.append(("ZREMRANGEBYSCORE", key, open_time, open_time))
            continue
        market = state.market
        text = texts.encode(after, market, interval.name) if undoable else encode_candle(after, market)
        replaces = before is not None or changes.reorg is not None
        written.series.append((key, int(replaces), 2, open_time, text))
    for candles in (changes.more_candles,) if changes.more_candles else ():
        written.series += _series(candles, keys)
    for market_id, interval, oldest in dict.fromkeys(changes.trims):
        if oldest > interval.open_time(changes.market(market_id).created_at):
            key = keys.candles(market_id, interval.name)
            written.commands.append(("ZREMRANGEBYSCORE", key, "-inf", f"({oldest}"))


def _series(candles: CandleBatch, keys: Keys) -> Iterable[Command]:
    """Candles of many markets, each series' together."""
    if not isinstance(candles, FoldedCandles):
        raise TypeError(f"no way to write {type(candles).__name__}")
    prefixes = [keys.candles(market.id, "") for market in candles.markets]
    for (interval, rows, market, replaces), texts in zip(candles.series, encode_folded(candles), strict=True):
        starts = np.flatnonzero(np.r_[True, market[1:] != market[:-1]])
        words: list[Word] = [b""] * (2 * len(texts))
        words[::2], words[1::2] = rows[:, TIME].tolist(), texts
        edges = [*(2 * starts).tolist(), len(words)]
        whose, first = market[starts].tolist(), replaces[starts].astype(np.int64).tolist()
        for place, replaced, (start, end) in zip(whose, first, pairwise(edges), strict=True):
            key = prefixes[place] + interval.name
            for at in range(start, end, WORDS):
                part = words[at : min(end, at + WORDS)]
                yield (key, replaced if at == start else 0, len(part), *part)


def _write_alerts(changes: ChangeSet, keys: Keys, written: Writes) -> None:
    """The newest alerts and retractions, for readers."""
    told = [orjson.dumps(alert_item(alert)) for alert in changes.alerts[-FIRED_KEPT:]]
    written.lists += ((keys.fired, FIRED_KEPT, len(part), *part) for part in _parts(told))


def _write_figures(changes: ChangeSet, keys: Keys, written: Writes) -> None:
    for market_id, stats in changes.stats.items():
        key = keys.stats(market_id)
        if stats is None:
            written.commands.append(("DEL", key))
            continue
        figures = stats_fields(stats, changes.market(market_id))
        if stats.window is None:
            written.commands.append(("HDEL", key, "weightedAvgPrice"))
            written.commands.append(("HSET", key, *_flat(figures)))
        else:
            written.figures.append((key, *figures.values()))


def _registry(changes: ChangeSet, keys: Keys) -> Iterable[Command]:
    """Market records, who emits for whom, and when markets next change by the passing of time."""
    for market_id, record in changes.records.items():
        yield ("HSET", keys.market(market_id), *_flat(market_fields(record)))
    created, removed = changes.created.values(), changes.removed.values()
    yield from _together("ZADD", keys.markets, ((market.created_at, market.id) for market in created))
    yield from _together("HSET", keys.sources, ((market.source, market.id) for market in created))
    for market in removed:
        yield ("DEL", keys.market(market.id))
    yield from _together("ZREM", keys.markets, ((market.id,) for market in removed))
    yield from _together("HDEL", keys.sources, ((market.source,) for market in removed))
    due = changes.due.items()
    yield from _together("ZREM", keys.due, ((market_id,) for market_id, time in due if time is None))
    yield from _together("ZADD", keys.due, ((time, market_id) for market_id, time in due if time is not None))


def _alert_states(changes: ChangeSet, keys: Keys) -> Iterable[Command]:
    """Which alert rules have come true, and which are armed again."""
    states = [(encode_state_key(key), block) for key, block in changes.alert_states.items()]
    key = keys.alert_states
    yield from _together("HDEL", key, ((field,) for field, block in states if block is None))
    yield from _together("HSET", key, ((field, block) for field, block in states if block is not None))


def _undo(changes: ChangeSet, keys: Keys, texts: CandleTexts) -> Iterable[Command]:
    yield from _together("HDEL", keys.undo, ((number,) for number in changes.undo_dropped))
    if changes.undo:
        markets = {undo.market: changes.market(undo.market) for undo in changes.undo.markets}
        yield ("HSET", keys.undo, changes.undo.block.number, encode_undo(changes.undo, markets, texts))


def _together(command: str, key: str, members: Iterable[tuple[Word, ...]]) -> Iterable[Command]:
    """One command for many members of one key."""
    return ((command, key, *part) for part in _parts([word for member in members for word in member]))


def _parts(words: Sequence[Word]) -> Iterable[Sequence[Word]]:
    """The words in parts that a script can pass on to a command."""
    return (words[start : start + WORDS] for start in range(0, len(words), WORDS))


def rows(changes: ChangeSet, rules: Rules, told: Mapping[TradeId, bytes] = NOTHING) -> list[RowData]:
    """Outbox rows of a change set. Candles and statistics are references, read when they are sent.

    Args:
        changes: the change set.
        rules: the settings that matter.
        told: what `encode_told` gave.
    """
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
        elif isinstance(event, TradeProcessed) and event.trade.id in told:
            encoded.append(("trade_update", told[event.trade.id]))
        elif isinstance(event, AlertTriggered):
            encoded.append(("alert", orjson.dumps(alert_item(event.alert))))
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

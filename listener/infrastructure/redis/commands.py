"""A change set as the commands and outbox rows of its one atomic commit."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, pairwise
from typing import Final, NamedTuple

import numpy as np
import orjson

from listener.application.state import ChangeSet, Head, Rules
from listener.domain.entities import Market, Trade
from listener.domain.events import (
    DomainEvent,
    HistoryLoaded,
    MarketCreated,
    MarketGraduated,
    MarketRemoved,
    MarketRestored,
    ReorgDetected,
)
from listener.domain.value_objects import MarketId, TradeId
from listener.infrastructure.candle_columns import TIME
from listener.infrastructure.candle_fold import FoldedCandles
from listener.infrastructure.columns import Newest
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
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.trade_texts import encode_newest

RowData = tuple[str, bytes]

LISTED = 4_000
"""A larger reorg names the first so many of each, and a `resync` follows: messages have a limit."""
CANDLES_PER_ROW = 50
"""A row that refers to more candles would make messages that cannot be split."""
WORDS: Final = 2_000
"""Most words of a command that could have any number: a script can pass on some 8,000."""


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


class TradeTexts(NamedTuple):
    """Trades of a change set, encoded once: for their lists and for their rows.

    Attributes:
        kept: of each market, oldest first.
        in_order: all of them, if they are told to the backend one by one.
    """

    kept: Mapping[MarketId, Sequence[bytes]]
    in_order: Sequence[bytes]


def encode_trades(changes: ChangeSet) -> TradeTexts:
    """Encode trades; those that would be cut off their list at once only if they are told."""
    bulk = {market_id: trades for market_id, trades in changes.newest.items() if isinstance(trades, Newest)}
    texts: dict[MarketId, Sequence[bytes]] = dict(zip(bulk, encode_newest(list(bulk.values())), strict=True))
    for market_id, trades in changes.newest.items():
        if market_id not in bulk:
            some = trades if changes.live else trades[-changes.trades_kept[market_id] :]
            texts[market_id] = [encode_trade(trade, changes.market(market_id)) for trade in some]
    in_order: list[bytes] = []
    if changes.live:
        places = [place for trades in changes.newest.values() for place in _places(trades)]
        every = chain.from_iterable(texts[market_id] for market_id in changes.newest)
        in_order = [text for _, text in sorted(zip(places, every, strict=True))]
    return TradeTexts(texts, in_order)


def _places(trades: Sequence[Trade]) -> list[TradeId]:
    return trades.places() if isinstance(trades, Newest) else [trade.id for trade in trades]


def commands(changes: ChangeSet, keys: Keys, texts: CandleTexts, told: TradeTexts) -> Writes:
    """What the commit writes.

    Args:
        changes: the change set.
        keys: names of the keys.
        texts: remembers candles from one commit to the next.
        told: what `encode_trades` gave.
    """
    written = Writes()
    written.commands += _undo(changes, keys, texts)  # first: with newer candles, `texts` forgets these
    _write_trades(changes, keys, told, written)
    _write_candles(changes, keys, texts, written)
    _write_figures(changes, keys, written)
    written.commands += _registry(changes, keys)
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


def _write_trades(changes: ChangeSet, keys: Keys, told: TradeTexts, written: Writes) -> None:
    """The newest trades of each market."""
    for market_id, texts in told.kept.items():
        key, kept = keys.trades(market_id), changes.trades_kept[market_id]
        written.lists += ((key, kept, len(part), *part) for part in _parts(texts[-kept:]))
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
    if candles := _folded(changes):
        lines = encode_folded(candles)
        if undoable:
            texts.remember(candles, [changes.states[one.market.id].live for one in candles.states], lines)
        written.series += _series(candles, lines, keys)
    for market_id, interval, oldest in dict.fromkeys(changes.trims):
        if oldest > interval.open_time(changes.market(market_id).created_at):
            key = keys.candles(market_id, interval.name)
            written.commands.append(("ZREMRANGEBYSCORE", key, "-inf", f"({oldest}"))


def _folded(changes: ChangeSet) -> FoldedCandles | None:
    """Candles that are folded in bulk."""
    candles = changes.more_candles
    if candles is not None and not isinstance(candles, FoldedCandles):
        raise TypeError(f"no way to write {type(candles).__name__}")
    return candles


def _series(candles: FoldedCandles, lines: Sequence[Sequence[bytes]], keys: Keys) -> Iterable[Command]:
    """Candles of many markets, each series' together."""
    prefixes = [keys.candles(state.market.id, "") for state in candles.states]
    for (interval, rows, market, replaces), texts in zip(candles.series, lines, strict=True):
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


def rows(changes: ChangeSet, rules: Rules, told: TradeTexts) -> list[RowData]:
    """Outbox rows of what `ChangeSet.events` tells. Candles and statistics are references, read when sent.

    Args:
        changes: the change set.
        rules: the settings that matter.
        told: what `encode_trades` gave.
    """
    encoded: list[RowData] = []
    for event in changes.announced():
        encoded.append(_row(event))
        if isinstance(event, ReorgDetected) and max(len(event.orphaned), len(event.markets)) > LISTED:
            encoded.append(_row(HistoryLoaded("a reorg too large to be listed")))
    if not changes.live:
        return encoded
    encoded += (("trade_update", text) for text in told.in_order)
    encoded += map(_row, changes.concluded())
    for market_id, mentions in _mentions(changes, rules).items():
        for start in range(0, len(mentions), CANDLES_PER_ROW):
            part = mentions[start : start + CANDLES_PER_ROW]
            encoded.append(("chart_data", orjson.dumps({"s": market_id, "c": part})))
    encoded += (("market_data", market_id.encode()) for market_id in changes.stats)
    for interval in rules.intervals:
        if interval.name in changes.closed and interval.name in rules.published:
            closed = {"i": interval.name, "T": changes.closed[interval.name]}
            encoded.append(("candles_closed", orjson.dumps(closed)))
    return encoded


def _mentions(changes: ChangeSet, rules: Rules) -> Mapping[MarketId, list[tuple[str, int]]]:
    """Published candles that change, by market: interval and open time."""
    touched: defaultdict[MarketId, list[tuple[str, int]]] = defaultdict(list)
    for change in changes.candles:
        if change.interval.name in rules.published:
            touched[change.market].append((change.interval.name, change.open_time))
    if candles := _folded(changes):
        ids = [state.market.id for state in candles.states]
        for interval, candle_rows, market, _ in candles.series:
            if interval.name in rules.published:
                for place, time in zip(market.tolist(), candle_rows[:, TIME].tolist(), strict=True):
                    touched[ids[place]].append((interval.name, time))
    return touched


def _row(event: DomainEvent) -> RowData:
    match event:
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

"""The oracle: what Redis must hold, computed from a chain's logs the slow and obvious way.

It shares no code with the listener, on purpose. Filter, sort, loop, compare; no state is carried from one
block to the next except lists. Amounts are `Fraction` until the moment they become decimal strings.

    chain = read_chain(http_rpc(url), 0, tip, factories)       # or built by hand
    expected = compute(chain, Settings(factories=factories, intervals=("1m", "1h"), as_of=now_ms))
    assert compare_redis(client, chain_id, expected) == []
"""

from __future__ import annotations

import json
import urllib.request
from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from web3 import Web3

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

ZERO_ADDRESS = "0x" + "00" * 20
QUOTE_DECIMALS = 18
SIGNIFICANT_DIGITS = 24
NAME_CHARACTERS_MAX = 64
SCHEMA = "1"

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
WEEK_MS = 7 * DAY_MS
FIRST_MONDAY_MS = 4 * DAY_MS  # 1970-01-05; 1970-01-01 was a Thursday

ONE_MINUTE_KEPT_MIN_MS = 1_441 * MINUTE_MS  # one-minute candles are kept at least this long, listed or not


def topic_of(signature: str) -> str:
    """Keccak-256 of a signature: the first topic of an event."""
    return "0x" + bytes(Web3.keccak(text=signature)).hex()


TRADE_TOPIC = topic_of("Trade(address,address,bool,uint256,uint256,uint256,uint256,uint256)")
CURVE_CREATED_TOPIC = topic_of("CurveCreated(address,address,address,string,string)")
GRADUATED_TOPIC = topic_of("Graduated(address,address,uint256,uint256)")


# --------------------------------------------------------------------------------------------------- input


class Block(NamedTuple):
    """A canonical block; `timestamp` in seconds."""

    number: int
    hash: str
    timestamp: int


class TokenMetadata(NamedTuple):
    """What a token says about itself, name and symbol already cleaned."""

    decimals: int
    name: str
    symbol: str


@dataclass(frozen=True)
class Chain:
    """The canonical chain as read from a node.

    `logs` are raw JSON-RPC objects, in any order. A token without an entry in `metadata` is one whose
    decimals cannot be read. `genesis` is the hash of block 0, if known.
    """

    blocks: Sequence[Block]
    logs: Sequence[Mapping[str, Any]]
    metadata: Mapping[str, TokenMetadata | None]
    genesis: str | None = None


@dataclass(frozen=True)
class Settings:
    """What the listener was told.

    `retention` is in milliseconds by interval, None or absent meaning for ever. `as_of` (ms) is the instant
    of the rolling figures; None means the time of the last block.
    """

    factories: Iterable[str]
    intervals: Sequence[str] = ("1m",)
    price_mode: str = "execution"
    retention: Mapping[str, int | None] = field(default_factory=dict)
    start_block: int = 0
    as_of: int | None = None
    trades_kept: int = 200
    venue: str = "bonding_curve"
    quote_symbol: str = "ETH"


# -------------------------------------------------------------------------------------------------- output


class Tick(NamedTuple):
    """One counted trade: exact numbers for folding, and its public form."""

    t: int
    id: str
    is_buy: bool
    price: Fraction
    base: Fraction
    quote: Fraction
    public: dict[str, Any]


@dataclass
class Expected:
    """The public Redis content as plain Python: decimals are strings, times and counts are integers.

    `candles` are complete, oldest first; `must_exist_from` says by interval from which open time (ms) on
    they have to be there. `trades` are complete, newest first. `ticks` (oldest first) allow the statistics
    to be computed again for another instant. Markets without a trade have no candles, trades or stats.
    """

    last_block: Block | None
    genesis: str | None
    as_of: int
    trades_kept: int
    intervals: tuple[str, ...]
    must_exist_from: dict[str, int]
    markets: dict[str, int]
    records: dict[str, dict[str, str | int]]
    candles: dict[tuple[str, str], list[dict[str, Any]]]
    trades: dict[str, list[dict[str, Any]]]
    stats: dict[str, dict[str, str | int]]
    ticks: dict[str, list[Tick]]


# ------------------------------------------------------------------------------------------------- numbers


def round_significant(value: Fraction, digits: int = SIGNIFICANT_DIGITS) -> Fraction:
    """Round to `digits` significant digits, half to even."""
    if value == 0:
        return value
    magnitude = abs(value)
    scale = Fraction(1)
    while magnitude * scale >= 10**digits:
        scale /= 10
    while magnitude * scale < 10 ** (digits - 1):
        scale *= 10
    scaled = magnitude * scale
    whole = scaled.numerator // scaled.denominator
    rest = scaled - whole
    half = Fraction(1, 2)
    if rest > half or (rest == half and whole % 2 == 1):
        whole += 1
    rounded = whole / scale
    return rounded if value > 0 else -rounded


def decimal_string(value: Fraction) -> str:
    """Write a number that ends: no exponent, no trailing zeros. ValueError if it does not end."""
    places = 0
    scaled = value
    while scaled.denominator != 1:
        if scaled.denominator % 2 != 0 and scaled.denominator % 5 != 0:
            raise ValueError(f"{value} has no finite decimal form")
        scaled *= 10
        places += 1
    sign = "-" if scaled < 0 else ""
    digits = str(abs(scaled.numerator)).zfill(places + 1)
    if places == 0:
        return sign + digits
    return f"{sign}{digits[:-places]}.{digits[-places:]}"


def interval_ms(interval: str) -> int:
    """Length of an interval such as `5m`, `4h`, `1d` or `1w`."""
    unit = {"m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS, "w": WEEK_MS}[interval[-1]]
    return int(interval[:-1]) * unit


def open_time(t: int, interval: str) -> int:
    """Open time of the bucket that holds the instant `t`; weeks open on Monday 00:00 UTC."""
    length = interval_ms(interval)
    anchor = FIRST_MONDAY_MS if interval.endswith("w") else 0
    return (t - anchor) // length * length + anchor


# ---------------------------------------------------------------------------------------------------- logs


class Malformed(Exception):
    """A log does not have the form of its event."""


def number_of(quantity: str) -> int:
    """Read a JSON-RPC quantity."""
    return int(quantity, 16)


def bytes_of(data: str) -> bytes:
    """Read JSON-RPC data."""
    return bytes.fromhex(data.removeprefix("0x"))


def words(data: str, count: int) -> list[int]:
    """Split event data into exactly `count` words."""
    raw = bytes_of(data)
    if len(raw) != 32 * count:
        raise Malformed(f"{len(raw)} bytes of data instead of {32 * count}")
    return [int.from_bytes(raw[start : start + 32], "big") for start in range(0, len(raw), 32)]


def topic_addresses(log: Mapping[str, Any], count: int) -> list[str]:
    """Read the indexed addresses, which must be exactly `count`."""
    topics = log["topics"][1:]
    if len(topics) != count:
        raise Malformed(f"{len(topics)} indexed arguments instead of {count}")
    addresses = []
    for topic in topics:
        raw = bytes_of(topic)
        if len(raw) != 32 or raw[:12] != bytes(12):
            raise Malformed(f"{topic} is not an address")
        addresses.append("0x" + raw[12:].hex())
    return addresses


def read_string(raw: bytes, head: int) -> bytes:
    """Read the ABI string whose offset stands at `head`. Only what lies inside `raw` is readable."""
    if head + 32 > len(raw):
        raise Malformed("no offset")
    offset = int.from_bytes(raw[head : head + 32], "big")
    if offset + 32 > len(raw):
        raise Malformed("offset outside the data")
    length = int.from_bytes(raw[offset : offset + 32], "big")
    if offset + 32 + length > len(raw):
        raise Malformed("string longer than the data")
    return raw[offset + 32 : offset + 32 + length]


class Creation(NamedTuple):
    """A decoded CurveCreated. Its texts are not used: the token itself is asked."""

    token: str
    curve: str
    creator: str


class TradeEvent(NamedTuple):
    """A decoded Trade, amounts in base units."""

    token: str
    trader: str
    is_buy: bool
    base: int
    quote: int
    fee: int
    reserve_base: int
    reserve_quote: int


class Graduation(NamedTuple):
    """A decoded Graduated."""

    token: str
    pool: str


def decode_creation(log: Mapping[str, Any]) -> Creation:
    """Decode CurveCreated or raise Malformed."""
    token, curve, creator = topic_addresses(log, 3)
    raw = bytes_of(log["data"])
    read_string(raw, 0)
    read_string(raw, 32)
    return Creation(token, curve, creator)


def decode_trade(log: Mapping[str, Any]) -> TradeEvent:
    """Decode Trade or raise Malformed."""
    token, trader = topic_addresses(log, 2)
    is_buy, base, quote, fee, reserve_base, reserve_quote = words(log["data"], 6)
    if is_buy not in (0, 1):
        raise Malformed(f"{is_buy} is not a bool")
    return TradeEvent(token, trader, is_buy == 1, base, quote, fee, reserve_base, reserve_quote)


def decode_graduation(log: Mapping[str, Any]) -> Graduation:
    """Decode Graduated or raise Malformed."""
    token, pool = topic_addresses(log, 2)
    words(log["data"], 2)
    return Graduation(token, pool)


def topic0(log: Mapping[str, Any]) -> str | None:
    """First topic in lower case; None for an anonymous log."""
    return log["topics"][0].lower() if log["topics"] else None


def is_creation_of(log: Mapping[str, Any], factories: Iterable[str]) -> bool:
    """Whether one of the configured factories emitted a CurveCreated."""
    known = {factory.lower() for factory in factories}
    return topic0(log) == CURVE_CREATED_TOPIC and log["address"].lower() in known


# --------------------------------------------------------------------------------------------- computation


def compute(chain: Chain, settings: Settings) -> Expected:
    """Compute what Redis must hold after the last block of `chain`, with figures as of `settings.as_of`.

    ValueError if the input is not a chain: numbers with gaps, falling timestamps, logs of other blocks.
    """
    check_chain(chain)
    last_block = chain.blocks[-1] if chain.blocks else None
    head_ms = last_block.timestamp * 1000 if last_block else 0
    as_of = head_ms if settings.as_of is None else settings.as_of
    if as_of < head_ms:
        raise ValueError(f"asOf {as_of} is earlier than the last block, {head_ms}")

    state = replay(chain, settings)
    traded = {market: ticks for market, ticks in state.ticks.items() if ticks}
    intervals = tuple(dict.fromkeys(["1m", *settings.intervals]))  # one-minute candles always exist
    return Expected(
        last_block=last_block,
        genesis=chain.genesis,
        as_of=as_of,
        trades_kept=settings.trades_kept,
        intervals=intervals,
        must_exist_from=oldest_kept(settings, head_ms),
        markets={market: int(record["createdAt"]) for market, record in state.records.items()},
        records=state.records,
        candles={
            (market, interval): candles(ticks, interval)
            for market, ticks in traded.items()
            for interval in intervals
        },
        trades={market: [tick.public for tick in reversed(ticks)] for market, ticks in traded.items()},
        stats={market: statistics(ticks, as_of) for market, ticks in traded.items()},
        ticks=traded,
    )


def check_chain(chain: Chain) -> None:
    """ValueError unless blocks follow each other and every log belongs to one of them."""
    for parent, child in zip(chain.blocks, chain.blocks[1:], strict=False):
        if child.number != parent.number + 1:
            raise ValueError(f"block {child.number} follows block {parent.number}")
        if child.timestamp < parent.timestamp:
            raise ValueError(f"time falls at block {child.number}")
    hashes = {block.number: block.hash.lower() for block in chain.blocks}
    positions = set()
    for log in chain.logs:
        number = number_of(log["blockNumber"])
        if hashes.get(number) != log["blockHash"].lower():
            raise ValueError(f"a log of block {number} {log['blockHash']}, which is not in the chain")
        position = (number, number_of(log["logIndex"]))
        if position in positions:
            raise ValueError(f"two logs at {position}")
        positions.add(position)


@dataclass
class Replay:
    """What the logs have said so far: market records, trades by market, and whose events count."""

    records: dict[str, dict[str, str | int]] = field(default_factory=dict)
    ticks: dict[str, list[Tick]] = field(default_factory=dict)
    market_of_emitter: dict[str, str] = field(default_factory=dict)


def replay(chain: Chain, settings: Settings) -> Replay:
    """Go through the logs in order, one transaction at a time: its creations first, then the rest."""
    blocks = {block.number: block for block in chain.blocks}
    state = Replay()
    logs = [log for log in chain.logs if number_of(log["blockNumber"]) >= settings.start_block]
    logs.sort(key=lambda log: (number_of(log["blockNumber"]), number_of(log["logIndex"])))
    for (number, _), group in groupby(
        logs, key=lambda log: (number_of(log["blockNumber"]), log["transactionHash"])
    ):
        transaction = list(group)
        for log in transaction:
            if is_creation_of(log, settings.factories):
                replay_creation(state, log, blocks[number], chain, settings)
        for log in transaction:
            market = state.market_of_emitter.get(log["address"].lower())
            if market is not None and topic0(log) == TRADE_TOPIC:
                replay_trade(state, log, market, blocks[number].timestamp * 1000, settings)
            elif market is not None and topic0(log) == GRADUATED_TOPIC:
                replay_graduation(state, log, market)
    return state


def replay_creation(
    state: Replay, log: Mapping[str, Any], block: Block, chain: Chain, settings: Settings
) -> None:
    """Open a market. The first claim of a token or curve wins; decimals are never guessed."""
    try:
        creation = decode_creation(log)
    except Malformed:
        return
    if creation.token in state.records or creation.curve in state.market_of_emitter:
        return
    metadata = chain.metadata.get(creation.token)
    if metadata is None:
        return
    state.records[creation.token] = record_of(creation, metadata, block, settings)
    state.ticks[creation.token] = []
    state.market_of_emitter[creation.curve] = creation.token


def replay_trade(state: Replay, log: Mapping[str, Any], market: str, time: int, settings: Settings) -> None:
    """Count a trade, unless an amount is zero or it speaks of another market's token."""
    try:
        trade = decode_trade(log)
    except Malformed:
        return
    if trade.token != market or trade.base == 0 or trade.quote == 0:
        return
    decimals = int(state.records[market]["baseDecimals"])
    state.ticks[market].append(tick_of(trade, log, time, decimals, settings.price_mode))


def replay_graduation(state: Replay, log: Mapping[str, Any], market: str) -> None:
    """Note where trading goes on; the zero address says nowhere."""
    try:
        graduation = decode_graduation(log)
    except Malformed:
        return
    if graduation.token != market:
        return
    state.records[market]["status"] = "graduated"
    state.records[market]["successor"] = "" if graduation.pool == ZERO_ADDRESS else graduation.pool


def record_of(
    creation: Creation, metadata: TokenMetadata, block: Block, settings: Settings
) -> dict[str, str | int]:
    """Build the market record of a new curve."""
    return {
        "venue": settings.venue,
        "token": creation.token,
        "quote": ZERO_ADDRESS,
        "quoteSymbol": settings.quote_symbol,
        "baseDecimals": metadata.decimals,
        "quoteDecimals": QUOTE_DECIMALS,
        "name": metadata.name,
        "symbol": metadata.symbol,
        "creator": creation.creator,
        "createdBlock": block.number,
        "createdAt": block.timestamp * 1000,
        "status": "trading",
        "successor": "",
        "emitter": creation.curve,
    }


def tick_of(trade: TradeEvent, log: Mapping[str, Any], time: int, decimals: int, price_mode: str) -> Tick:
    """Put the decimal point into a trade and choose its price."""
    base = Fraction(trade.base, 10**decimals)
    quote = Fraction(trade.quote, 10**QUOTE_DECIMALS)
    execution_price = round_significant(quote / base)
    spot_price = None
    if trade.reserve_base > 0 and trade.reserve_quote > 0:
        reserve_base = Fraction(trade.reserve_base, 10**decimals)
        reserve_quote = Fraction(trade.reserve_quote, 10**QUOTE_DECIMALS)
        spot_price = round_significant(reserve_quote / reserve_base)
    if price_mode == "execution":
        price = execution_price
    elif price_mode == "spot":
        price = execution_price if spot_price is None else spot_price
    else:
        raise ValueError(f"unknown price mode {price_mode}")

    number = number_of(log["blockNumber"])
    log_index = number_of(log["logIndex"])
    identity = f"{number}-{log_index}"
    public: dict[str, Any] = {
        "id": identity,
        "s": trade.token,
        "t": time,
        "b": number,
        "bh": log["blockHash"].lower(),
        "li": log_index,
        "tx": log["transactionHash"].lower(),
        "side": "buy" if trade.is_buy else "sell",
        "trader": trade.trader,
        "p": decimal_string(price),
        "xp": decimal_string(execution_price),
        "v": decimal_string(base),
        "q": decimal_string(quote),
        "fee": decimal_string(Fraction(trade.fee, 10**QUOTE_DECIMALS)),
    }
    if spot_price is not None:
        public["sp"] = decimal_string(spot_price)
    return Tick(time, identity, trade.is_buy, price, base, quote, public)


def candles(ticks: Sequence[Tick], interval: str) -> list[dict[str, Any]]:
    """All candles of one series, oldest first. `ticks` are in chain order."""
    buckets: dict[int, list[Tick]] = defaultdict(list)
    for tick in ticks:
        buckets[open_time(tick.t, interval)].append(tick)
    series: list[dict[str, Any]] = []
    for t in sorted(buckets):
        bucket = buckets[t]
        buys = [tick for tick in bucket if tick.is_buy]
        candle: dict[str, Any] = {
            "t": t,
            "o": decimal_string(bucket[0].price),
            "h": decimal_string(max(tick.price for tick in bucket)),
            "l": decimal_string(min(tick.price for tick in bucket)),
            "c": decimal_string(bucket[-1].price),
            "v": decimal_string(total(tick.base for tick in bucket)),
            "q": decimal_string(total(tick.quote for tick in bucket)),
            "V": decimal_string(total(tick.base for tick in buys)),
            "Q": decimal_string(total(tick.quote for tick in buys)),
            "n": len(bucket),
            "N": len(buys),
            "f": bucket[0].id,
            "L": bucket[-1].id,
        }
        if series:
            candle["pc"] = series[-1]["c"]
        series.append(candle)
    return series


def total(values: Iterable[Fraction]) -> Fraction:
    """Exact sum."""
    return sum(values, Fraction(0))


def statistics(ticks: Sequence[Tick], as_of: int) -> dict[str, str | int]:
    """24 h figures of a market that has traded: the 1,440 minutes that end with the minute of `as_of`."""
    last_minute = open_time(as_of, "1m")
    first_minute = last_minute - 1_439 * MINUTE_MS
    window = [tick for tick in ticks if first_minute <= open_time(tick.t, "1m") <= last_minute]
    buys = [tick for tick in window if tick.is_buy]
    sells = [tick for tick in window if not tick.is_buy]

    last = ticks[-1].price
    opened = window[0].price if window else last
    change = last - opened
    volume = total(tick.base for tick in window)
    quote_volume = total(tick.quote for tick in window)

    traded_minutes = {open_time(tick.t, "1m") for tick in ticks}
    changes = traded_minutes | {minute + DAY_MS for minute in traded_minutes}  # it comes in, it falls out
    close_time = max(minute for minute in changes if minute <= last_minute) + MINUTE_MS - 1

    figures: dict[str, str | int] = {
        "openPrice": decimal_string(opened),
        "highPrice": decimal_string(max((tick.price for tick in window), default=last)),
        "lowPrice": decimal_string(min((tick.price for tick in window), default=last)),
        "lastPrice": decimal_string(last),
        "priceChange": decimal_string(change),
        "priceChangePercent": decimal_string(round_significant(100 * change / opened)),
        "volume": decimal_string(volume),
        "quoteVolume": decimal_string(quote_volume),
        "count": len(window),
        "buyVolume": decimal_string(total(tick.base for tick in buys)),
        "sellVolume": decimal_string(total(tick.base for tick in sells)),
        "buyCount": len(buys),
        "sellCount": len(sells),
        "openTime": close_time - DAY_MS + 1,
        "closeTime": close_time,
    }
    if window:
        figures["weightedAvgPrice"] = decimal_string(round_significant(quote_volume / volume))
    return figures


def oldest_kept(settings: Settings, head_ms: int) -> dict[str, int]:
    """By interval, the open time (ms) from which on candles must be there when the head's time is `head_ms`.

    Older ones may be gone or not. An interval without a retention is kept for ever. One-minute candles are
    kept for 1,441 minutes at least, and if they are not among the intervals nothing more is promised.
    """
    kept = {interval: settings.retention.get(interval) for interval in settings.intervals}
    one_minute = kept.get("1m", ONE_MINUTE_KEPT_MIN_MS)
    kept["1m"] = None if one_minute is None else max(one_minute, ONE_MINUTE_KEPT_MIN_MS)
    return {interval: 0 if age is None else max(0, head_ms - age) for interval, age in kept.items()}


# ---------------------------------------------------------------------------------------------- comparison


def compare_redis(
    client: Any,
    chain_id: int,
    expected: Expected,
    *,
    as_of: int | None = None,
    must_exist_from: Mapping[str, int] | None = None,
    trades_kept: int | None = None,
) -> list[str]:
    """Compare every public key of a chain with what is expected; return the differences, none if equal.

    `client` is a synchronous redis-py client, with or without `decode_responses`. The statistics are compared
    as of the instant stored in the head, whatever `expected.as_of` says; with `as_of` given, the stored
    instant has to be that one. The other two arguments override the values in `expected`.
    """
    tag = f"{{{chain_id}}}"
    kept_from = expected.must_exist_from if must_exist_from is None else must_exist_from
    kept = expected.trades_kept if trades_kept is None else trades_kept
    found, readable = key_differences(client, chain_id, expected, kept_from)

    stats_as_of = expected.as_of
    key = f"head:{tag}"
    if key in readable:
        head = read_hash(client, key)
        found += head_differences(key, head, chain_id, expected, as_of)
        if is_integer(head.get("asOf")) and int(head["asOf"]) >= last_block_ms(expected):
            stats_as_of = int(head["asOf"])
    key = f"partitions:{chain_id}"
    if key in readable and (partitions := text(client.get(key))) != "1":
        found.append(f"{key}: {partitions!r} instead of '1'")
    key = f"markets:{tag}"
    if key in readable:
        scores = {text(member): score for member, score in client.zrange(key, 0, -1, withscores=True)}
        found += dict_differences(key, expected.markets, scores, exact_types=False)
    found += market_differences(
        client, tag, expected, readable, as_of=stats_as_of, kept_from=kept_from, kept=kept
    )
    return found


def market_differences(
    client: Any,
    tag: str,
    expected: Expected,
    readable: set[str],
    *,
    as_of: int,
    kept_from: Mapping[str, int],
    kept: int,
) -> list[str]:
    """Compare what is stored by market, in the keys that are `readable`."""
    found = []
    for market, record in expected.records.items():
        key = f"market:{tag}:{market}"
        if key in readable:
            found += dict_differences(key, as_strings(record), read_hash(client, key))
    for market, ticks in expected.ticks.items():
        key = f"stats:{tag}:{market}"
        if key in readable:
            figures = as_strings(statistics(ticks, as_of))
            found += dict_differences(key, figures, read_hash(client, key))
    for market, trades in expected.trades.items():
        key = f"trades:{tag}:{market}"
        if key in readable:
            found += trades_differences(key, trades, read_list(client, key), kept)
    for (market, interval), series in expected.candles.items():
        key = f"candles:{tag}:{market}:{interval}"
        if key in readable:
            found += candle_differences(client, key, series, kept_from.get(interval, 0))
    return found


def key_differences(
    client: Any, chain_id: int, expected: Expected, kept_from: Mapping[str, int]
) -> tuple[list[str], set[str]]:
    """Compare the names and types of all public keys; return the differences, and the keys to look into."""
    tag = f"{{{chain_id}}}"
    started = expected.last_block is not None
    types = {f"head:{tag}": "hash", f"partitions:{chain_id}": "string"} if started else {}
    optional = set()
    if expected.markets:
        types[f"markets:{tag}"] = "zset"
    for market in expected.markets:
        types[f"market:{tag}:{market}"] = "hash"
    for market in expected.trades:
        types[f"trades:{tag}:{market}"] = "list"
        types[f"stats:{tag}:{market}"] = "hash"
    for (market, interval), series in expected.candles.items():
        key = f"candles:{tag}:{market}:{interval}"
        types[key] = "zset"
        if series[-1]["t"] < kept_from.get(interval, 0):
            optional.add(key)  # all of it is past its retention

    stored = public_keys(client, chain_id)
    found = [f"{key}: missing" for key in sorted(types.keys() - stored.keys() - optional)]
    for key in sorted(stored):
        if key not in types:
            found.append(f"{key}: unexpected key of type {stored[key]}")
        elif stored[key] != types[key]:
            found.append(f"{key}: type {stored[key]} instead of {types[key]}")
    return found, {key for key in stored if stored[key] == types.get(key)}


def read_as_of(client: Any, chain_id: int) -> int:
    """Read `asOf` (ms) from the stored head."""
    return int(text(client.hget(f"head:{{{chain_id}}}", "asOf")))


def public_keys(client: Any, chain_id: int) -> dict[str, str]:
    """All public keys of a chain with their Redis types. Whatever else is stored is private."""
    tag = f"{{{chain_id}}}"
    whole = {f"markets:{tag}", f"head:{tag}", f"partitions:{chain_id}"}
    prefixes = tuple(f"{name}:{tag}:" for name in ("candles", "stats", "trades", "market"))
    keys = {text(key) for key in client.scan_iter(count=1000)}
    return {key: text(client.type(key)) for key in keys if key in whole or key.startswith(prefixes)}


def head_differences(
    key: str, head: Mapping[str, str], chain_id: int, expected: Expected, as_of: int | None
) -> list[str]:
    """Compare the named fields of the head. Other fields are private."""
    block = expected.last_block
    if block is None:
        return []
    want = {
        "number": str(block.number),
        "hash": block.hash.lower(),
        "timestamp": str(last_block_ms(expected)),
        "schema": SCHEMA,
        "chainId": str(chain_id),
    }
    if expected.genesis is not None:
        want["genesis"] = expected.genesis.lower()
    if as_of is not None:
        want["asOf"] = str(as_of)
    found = dict_differences(key, want, {name: head[name] for name in want if name in head})
    found += [
        f"{key} {name}: {head.get(name)!r} is not an integer"
        for name in ("asOf", "gen", "epoch", "seq")
        if not is_integer(head.get(name))
    ]
    if "genesis" not in head and expected.genesis is None:
        found.append(f"{key} genesis: missing")
    if is_integer(head.get("asOf")) and int(head["asOf"]) < last_block_ms(expected):
        found.append(f"{key} asOf: {head['asOf']} is earlier than the block, {last_block_ms(expected)}")
    return found


def last_block_ms(expected: Expected) -> int:
    """Time of the last block; 0 if there is none."""
    return expected.last_block.timestamp * 1000 if expected.last_block else 0


def candle_differences(client: Any, key: str, series: Sequence[dict[str, Any]], kept_from: int) -> list[str]:
    """Compare one series: each stored candle must be true, and none may be missing from `kept_from` on."""
    found = []
    truth = {candle["t"]: candle for candle in series}
    seen = set()
    for member, score in client.zrange(key, 0, -1, withscores=True):
        if score in seen:
            found.append(f"{key} {score:.0f}: more than one candle")
        seen.add(score)
        candle, problem = parse_object(text(member))
        if problem:
            found.append(f"{key} {score:.0f}: {problem}")
        elif candle.get("t") != score:
            found.append(f"{key} {score!r}: score of the candle with t {candle.get('t')!r}")
        elif score not in truth:
            found.append(f"{key} {score:.0f}: unexpected candle {text(member)}")
        else:
            found += dict_differences(f"{key} {score:.0f}", truth[int(score)], candle)
    found += [f"{key} {t}: candle missing" for t in sorted(truth) if t >= kept_from and t not in seen]
    return found


def trades_differences(
    key: str, trades: Sequence[dict[str, Any]], stored: Sequence[str], kept: int
) -> list[str]:
    """Compare a trade list, newest first: the beginning of the whole, and not less than the newest `kept`."""
    found = []
    for position, line in enumerate(stored):
        trade, problem = parse_object(line)
        if problem:
            found.append(f"{key}[{position}]: {problem}")
        elif position >= len(trades):
            found.append(f"{key}[{position}]: unexpected trade {line}")
        elif trade.get("id") != trades[position]["id"]:
            found.append(f"{key}[{position}]: trade {trade.get('id')} instead of {trades[position]['id']}")
        else:
            found += dict_differences(f"{key}[{position}]", trades[position], trade)
    missing = trades[len(stored) : max(len(stored), min(kept, len(trades)))]
    found += [f"{key}: trade {trade['id']} missing" for trade in missing]
    return found


def dict_differences(
    label: str, expected: Mapping[str, Any], actual: Mapping[str, Any], *, exact_types: bool = True
) -> list[str]:
    """Compare field by field, both ways. With exact types 1, 1.0, True and "1" all differ."""
    found = []
    for name in sorted({*expected, *actual}):
        if name not in actual:
            found.append(f"{label} {name}: missing, should be {expected[name]!r}")
        elif name not in expected:
            found.append(f"{label} {name}: unexpected, is {actual[name]!r}")
        elif actual[name] != expected[name] or (
            exact_types and type(actual[name]) is not type(expected[name])
        ):
            found.append(f"{label} {name}: {actual[name]!r} instead of {expected[name]!r}")
    return found


def compare_node_view(
    client: Any,
    chain_id: int,
    view: Mapping[str, Any],
    *,
    intervals: Iterable[str] | None = None,
    must_exist_from: Mapping[str, int] | None = None,
    trades_kept: int = 200,
) -> list[str]:
    """Compare what a backend holds with Redis; return the differences, none if equal.

    The view has the items as they came from the socket, or their Redis form:

        {"markets": {id: {"record": {...}, "stats": {...} or None}},
         "candles": {(id, interval): newest candle},
         "trades": {id: [newest first]}}

    Only `intervals` are compared, all of them by default. A last candle that Redis has no longer is accepted
    if it is older than `must_exist_from` of its interval. Trade lists may differ in length once both hold
    `trades_kept`. Whether Redis itself is right is for `compare_redis` to say.
    """
    return [
        *view_market_differences(client, chain_id, view["markets"]),
        *view_candle_differences(client, chain_id, view["candles"], intervals, must_exist_from or {}),
        *view_trade_differences(client, chain_id, view["trades"], trades_kept),
    ]


def keys_after(client: Any, chain_id: int, prefix: str) -> list[str]:
    """What follows `prefix` in the public keys that begin with it, sorted."""
    keys = public_keys(client, chain_id)
    return sorted(key.removeprefix(prefix) for key in keys if key.startswith(prefix))


def view_market_differences(client: Any, chain_id: int, markets: Mapping[str, Any]) -> list[str]:
    """Compare a backend's market records and statistics with Redis."""
    tag = f"{{{chain_id}}}"
    stored = keys_after(client, chain_id, f"market:{tag}:")
    found = [f"view market {market}: missing" for market in stored if market not in markets]
    found += [f"view market {market}: unexpected" for market in markets if market not in stored]
    for market in stored:
        if market not in markets:
            continue
        for part, key in (("record", f"market:{tag}:{market}"), ("stats", f"stats:{tag}:{market}")):
            label = f"view {part} {market}"
            plain, problems = without_context(label, markets[market].get(part) or {}, {"s": market})
            found += problems
            found += dict_differences(label, read_hash(client, key), as_strings(plain))
    return found


def view_candle_differences(
    client: Any,
    chain_id: int,
    candles_held: Mapping[tuple[str, str], Mapping[str, Any]],
    intervals: Iterable[str] | None,
    kept_from: Mapping[str, int],
) -> list[str]:
    """Compare a backend's newest candle of each series with Redis."""
    prefix = f"candles:{{{chain_id}}}:"
    stored: dict[tuple[str, str], dict[str, Any]] = {}
    for name in keys_after(client, chain_id, prefix):
        market, interval = name.rsplit(":", 1)
        stored[market, interval] = json.loads(text(client.zrange(prefix + name, -1, -1)[0]))
    wanted = None if intervals is None else set(intervals)
    found = []
    for market, interval in sorted({*stored, *candles_held}):
        if wanted is not None and interval not in wanted:
            continue
        label = f"view candle {market} {interval}"
        held = candles_held.get((market, interval))
        truth = stored.get((market, interval))
        if held is None:
            found.append(f"{label}: missing, should be {truth}")
        elif truth is None:
            if held["t"] >= kept_from.get(interval, 0):
                found.append(f"{label}: unexpected, is {held}")
        else:
            context = {"s": market, "i": interval, "T": held["t"] + interval_ms(interval) - 1}
            plain, problems = without_context(label, held, context)
            found += problems
            found += dict_differences(label, truth, plain)
    return found


def view_trade_differences(
    client: Any, chain_id: int, trades_held: Mapping[str, Sequence[Mapping[str, Any]]], kept: int
) -> list[str]:
    """Compare a backend's trades with Redis, newest first, as far as both go."""
    prefix = f"trades:{{{chain_id}}}:"
    found = []
    for market in sorted({*keys_after(client, chain_id, prefix), *trades_held}):
        label = f"view trades {market}"
        held = trades_held.get(market, [])
        stored = [json.loads(line) for line in read_list(client, prefix + market)]
        for position, (truth, trade) in enumerate(zip(stored, held, strict=False)):
            found += dict_differences(f"{label}[{position}]", truth, trade)
        if len(held) < min(len(stored), kept):
            found.append(f"{label}: {len(held)} of {len(stored)}")
        if len(stored) < min(len(held), kept):
            found.append(f"{label}: {len(held)}, Redis has only {len(stored)}")
    return found


def without_context(
    label: str, item: Mapping[str, Any], context: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Take off the fields that socket items add to the Redis form; if present they must be right."""
    plain = dict(item)
    found = []
    for name, value in context.items():
        if name in plain and plain.pop(name) != value:
            found.append(f"{label} {name}: {item[name]!r} instead of {value!r}")
    return plain, found


def text(value: Any) -> str:
    """Redis text, whether or not the client decodes."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def read_hash(client: Any, key: str) -> dict[str, str]:
    """Read a hash as text."""
    return {text(name): text(value) for name, value in client.hgetall(key).items()}


def read_list(client: Any, key: str) -> list[str]:
    """Read a list as text."""
    return [text(line) for line in client.lrange(key, 0, -1)]


def as_strings(fields: Mapping[str, Any]) -> dict[str, str]:
    """The form that values have in a Redis hash."""
    return {name: str(value) for name, value in fields.items()}


def is_integer(value: str | None) -> bool:
    """Whether a Redis string is there and a plain non-negative integer."""
    return value is not None and value.isascii() and value.isdigit()


def parse_object(line: str) -> tuple[dict[str, Any], str]:
    """Parse a JSON object; return it and, if there is one, the problem. No name may come twice."""
    repeated: list[str] = []

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        repeated.extend(name for name in names if names.count(name) > 1)
        return dict(pairs)

    try:
        value = json.loads(line, object_pairs_hook=build)
    except ValueError:
        return {}, f"not JSON: {line!r}"
    if not isinstance(value, dict):
        return {}, f"not an object: {line!r}"
    if repeated:
        return value, f"{repeated[0]!r} more than once: {line!r}"
    return value, ""


# ------------------------------------------------------------------------------------------------- reading


class RpcError(Exception):
    """The node answered with a JSON-RPC error."""


def http_rpc(url: str, timeout_s: float = 30.0) -> Callable[[str, list[Any]], Any]:
    """Make the plainest JSON-RPC callable: one HTTP request a call, the result or RpcError."""

    def call(method: str, params: list[Any]) -> Any:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        request = urllib.request.Request(url, data=body, headers={"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            reply = json.loads(response.read())
        if "error" in reply:
            raise RpcError(str(reply["error"]))
        return reply["result"]

    return call


def read_chain(
    rpc_call: Callable[[str, list[Any]], Any],
    start: int,
    end: int,
    factories: Iterable[str],
    *,
    metadata_block: str = "latest",
) -> Chain:
    """Read blocks `start` to `end`, both included, all their logs, and the metadata of announced tokens.

    `rpc_call(method, params)` returns the result and raises RpcError when the node answers with an error.
    ValueError if the chain changed while it was read.
    """
    factories = list(factories)
    genesis = rpc_call("eth_getBlockByNumber", ["0x0", False])["hash"].lower()
    blocks: list[Block] = []
    logs: list[Mapping[str, Any]] = []
    for number in range(start, end + 1):
        raw = rpc_call("eth_getBlockByNumber", [hex(number), False])
        if raw is None:
            raise ValueError(f"the node has no block {number}")
        if blocks and raw["parentHash"].lower() != blocks[-1].hash:
            raise ValueError(f"block {number} does not follow block {number - 1}: the chain changed")
        blocks.append(Block(number, raw["hash"].lower(), number_of(raw["timestamp"])))
        logs += rpc_call("eth_getLogs", [{"fromBlock": hex(number), "toBlock": hex(number)}])

    metadata: dict[str, TokenMetadata | None] = {}
    for log in logs:
        if is_creation_of(log, factories):
            try:
                token = decode_creation(log).token
            except Malformed:
                continue
            if token not in metadata:
                metadata[token] = read_metadata(rpc_call, token, metadata_block)
    chain = Chain(blocks, logs, metadata, genesis)
    check_chain(chain)
    return chain


def read_metadata(
    rpc_call: Callable[[str, list[Any]], Any], token: str, block: str = "latest"
) -> TokenMetadata | None:
    """Ask a token for its decimals, name and symbol; None if the decimals cannot be read."""

    def answer(function: str) -> bytes:
        selector = topic_of(function)[:10]
        try:
            return bytes_of(rpc_call("eth_call", [{"to": token, "data": selector}, block]))
        except RpcError:
            return b""

    decimals = decimals_of(answer("decimals()"))
    if decimals is None:
        return None
    return TokenMetadata(decimals, label_of(answer("name()"), token), label_of(answer("symbol()"), token))


def decimals_of(raw: bytes) -> int | None:
    """Read a uint8 answer; None if it is not one."""
    value = int.from_bytes(raw[:32], "big")
    return value if len(raw) >= 32 and value <= 255 else None


def label_of(raw: bytes, token: str) -> str:
    """Read a name or symbol, an ABI string or bytes32; the shortened address if nothing printable is left."""
    try:
        content = raw if len(raw) == 32 else read_string(raw, 0)
        decoded = content.strip(b"\0").decode("utf-8")
    except (Malformed, UnicodeDecodeError):
        decoded = ""
    printable = "".join(character for character in decoded if character.isprintable())
    return printable[:NAME_CHARACTERS_MAX].strip() or f"{token[:6]}…{token[-4:]}"

"""Between entities and what Redis stores. Amounts become decimal strings here and nowhere else."""

from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import msgspec
import orjson
from msgspec import Raw

from listener.application.changes import AlertUndo, BlockUndo, MarketUndo
from listener.application.rows import CandleRow, TradeRow
from listener.application.state import Written
from listener.domain.entities import Candle, Market, MarketStats, Trade
from listener.domain.value_objects import (
    Address,
    BlockRef,
    MarketId,
    TradeId,
    format_decimal,
    format_units,
    parse_units,
    ratio,
)
from listener.infrastructure.redis.alert_codec import alert_undo_item, decode_alert_undo

Fields = dict[str, str | int]

PRICES_REMEMBERED: Final = 1_024
"""Texts of prices: a market's candles share most of theirs."""

MARKETS_REMEMBERED: Final = 1_000
"""Their newest candles' texts are kept: some 6 KB each."""

PARSED_REMEMBERED: Final = 1_024
"""Prices and places of trades that were read: the candles of a market repeat them, too."""

_price: Final = lru_cache(PRICES_REMEMBERED)(format_decimal)
_decimal: Final = lru_cache(PARSED_REMEMBERED)(Decimal)
_place: Final = lru_cache(PARSED_REMEMBERED)(TradeId.parse)
_json: Final = msgspec.json.Encoder().encode


def candle_row(candle: Candle, market: Market) -> CandleRow:
    """A candle as in the public contract."""
    t, o, h, l, c, base, quote, bought_base, bought_quote, trades, buys, first, last, previous = candle
    base_decimals, quote_decimals = market.base_decimals, market.quote_decimals
    v, q = format_units(base, base_decimals), format_units(quote, quote_decimals)
    opened, closed = _price(o), _price(c)
    return CandleRow(
        t=t,
        o=opened,
        h=opened if h is o else closed if h is c else _price(h),
        l=opened if l is o else closed if l is c else _price(l),
        c=closed,
        pc=None if previous is None else _price(previous),
        v=v,
        q=q,
        V=v if bought_base == base else format_units(bought_base, base_decimals),
        Q=q if bought_quote == quote else format_units(bought_quote, quote_decimals),
        n=trades,
        N=buys,
        f=f"{first[0]}-{first[1]}",
        L=f"{last[0]}-{last[1]}",
    )


def candle_fields(candle: Candle, market: Market) -> dict[str, str | int]:
    """A candle as in the public contract."""
    fields: Fields = msgspec.to_builtins(candle_row(candle, market))
    return fields


def encode_candle(candle: Candle, market: Market) -> bytes:
    """A candle as a member of its ZSET."""
    return _json(candle_row(candle, market))


def decode_candle(data: bytes | Mapping[str, Any], base_decimals: int, quote_decimals: int) -> Candle:
    """Inverse of `encode_candle`."""
    fields: Mapping[str, Any] = orjson.loads(data) if isinstance(data, bytes) else data
    previous = fields.get("pc")
    return Candle(
        fields["t"],
        _decimal(fields["o"]),
        _decimal(fields["h"]),
        _decimal(fields["l"]),
        _decimal(fields["c"]),
        parse_units(fields["v"], base_decimals),
        parse_units(fields["q"], quote_decimals),
        parse_units(fields["V"], base_decimals),
        parse_units(fields["Q"], quote_decimals),
        fields["n"],
        fields["N"],
        _place(fields["f"]),
        _place(fields["L"]),
        None if previous is None else _decimal(previous),
    )


def encode_trade(trade: Trade, market: Market) -> bytes:
    """A trade as an element of its LIST and as an item of `trade_update`."""
    (
        market_id, block, log_index, block_hash, tx_hash, timestamp,
        is_buy, trader, base, quote, fee, reserves, exponent, by_reserves,
    ) = trade  # fmt: skip
    xp = format_decimal(ratio(quote, base, exponent))
    sp: str | None = None
    if reserves is not None and reserves[0] and reserves[1]:
        sp = format_decimal(ratio(reserves[1], reserves[0], exponent))
    base_decimals, quote_decimals = market.base_decimals, market.quote_decimals
    return _json(
        TradeRow(
            id=f"{block}-{log_index}",
            s=market_id,
            t=timestamp,
            b=block,
            bh=block_hash,
            li=log_index,
            tx=tx_hash,
            side="buy" if is_buy else "sell",
            trader=trader,
            p=xp if sp is None or not by_reserves else sp,
            xp=xp,
            sp=sp,
            v=format_units(base, base_decimals),
            q=format_units(quote, quote_decimals),
            fee=None if fee is None else format_units(fee, quote_decimals),
        )
    )


def market_fields(market: Market) -> Fields:
    """A market record as a HASH."""
    return {
        "venue": market.venue,
        "token": market.token,
        "quote": market.quote,
        "quoteSymbol": market.quote_symbol,
        "baseDecimals": market.base_decimals,
        "quoteDecimals": market.quote_decimals,
        "name": market.name,
        "symbol": market.symbol,
        "creator": market.creator,
        "createdBlock": market.created_block,
        "createdAt": market.created_at,
        "status": market.status,
        "successor": market.successor,
        "emitter": market.source,
    }


def decode_market(market: MarketId, fields: Mapping[str, str]) -> Market:
    """Inverse of `market_fields`."""
    return Market(
        id=market,
        venue=fields["venue"],
        source=fields["emitter"],
        token=Address(fields["token"]),
        quote=Address(fields["quote"]),
        quote_symbol=fields["quoteSymbol"],
        base_decimals=int(fields["baseDecimals"]),
        quote_decimals=int(fields["quoteDecimals"]),
        name=fields["name"],
        symbol=fields["symbol"],
        creator=Address(fields["creator"]),
        created_block=int(fields["createdBlock"]),
        created_at=int(fields["createdAt"]),
        status=fields["status"],
        successor=fields["successor"],
    )


def stats_fields(stats: MarketStats, market: Market) -> Fields:
    """24 h figures as a HASH; `weightedAvgPrice` is missing where there was no trade."""
    base, window, last = market.base_decimals, stats.window, _price(stats.last_price)
    fields: Fields = {
        "openTime": stats.open_time,
        "closeTime": stats.close_time,
        "openPrice": _price(window.open) if window else last,
        "highPrice": _price(window.high) if window else last,
        "lowPrice": _price(window.low) if window else last,
        "lastPrice": last,
        "priceChange": format_decimal(stats.price_change),
        "priceChangePercent": format_decimal(stats.price_change_percent),
        "volume": format_units(window.base, base) if window else "0",
        "quoteVolume": format_units(window.quote, market.quote_decimals) if window else "0",
        "count": window.trades if window else 0,
        "buyCount": window.buys if window else 0,
        "sellCount": window.trades - window.buys if window else 0,
        "buyVolume": format_units(window.bought_base, base) if window else "0",
        "sellVolume": format_units(window.base - window.bought_base, base) if window else "0",
    }
    average = stats.weighted_average_price(market.price_exponent)
    if average is not None:
        fields["weightedAvgPrice"] = format_decimal(average)
    return fields


FIGURES: Final = (
    *("openTime", "closeTime", "openPrice", "highPrice", "lowPrice", "lastPrice", "priceChange"),
    *("priceChangePercent", "volume", "quoteVolume", "count", "buyCount", "sellCount"),
    *("buyVolume", "sellVolume", "weightedAvgPrice"),
)
"""Names of the 24 h figures of a day with trades, in the order of `stats_fields`."""
STATS_INTEGERS = frozenset({"openTime", "closeTime", "count", "buyCount", "sellCount"})
MARKET_INTEGERS = frozenset({"baseDecimals", "quoteDecimals", "createdBlock", "createdAt"})


class CandleTexts:
    """Remembers how each market's newest candles were encoded: the before-images of its next change."""

    def __init__(self) -> None:
        self._known: dict[MarketId, dict[str, tuple[Candle, bytes]]] = {}

    def encode(self, candle: Candle, market: Market, interval: str) -> bytes:
        """`encode_candle`, for one that may have been encoded before or will be asked for again."""
        series = self._known.get(market.id)
        if series is None:
            if len(self._known) >= MARKETS_REMEMBERED:
                del self._known[next(iter(self._known))]
            series = self._known[market.id] = {}
        known = series.get(interval)
        if known is not None and known[0] is candle:
            return known[1]
        encoded = encode_candle(candle, market)
        series[interval] = (candle, encoded)
        return encoded


def encode_undo(undo: BlockUndo, markets: Mapping[MarketId, Market], texts: CandleTexts) -> bytes:
    """A before-image. Candles are stored as in the contract, with the decimals to read them."""
    block = undo.block
    fields: dict[str, object] = {
        "block": [block.number, block.hash, block.parent_hash, block.timestamp],
        "asOf": undo.as_of,
        "digest": undo.digest,
        "markets": [_undo_fields(market, markets[market.market], texts) for market in undo.markets],
    }
    if any(undo.alerts):
        fields["alerts"] = alert_undo_item(undo.alerts)
    return _json(fields)


def _undo_fields(undo: MarketUndo, market: Market, texts: CandleTexts) -> dict[str, object]:
    return {
        "s": undo.market,
        "decimals": [market.base_decimals, market.quote_decimals],
        "created": undo.created,
        "record": None if undo.record is None else market_fields(undo.record),
        "trades": undo.trades,
        "last": None if undo.last_price is None else _price(undo.last_price),
        "changed": undo.changed,
        "candles": [
            (interval, open_time, None if before is None else Raw(texts.encode(before, market, interval)))
            for interval, open_time, before in undo.candles
        ],
    }


class _WrittenMarket(msgspec.Struct):
    """The part of a market's before-image that is kept in memory."""

    s: str
    trades: int


class _Written(msgspec.Struct):
    """The part of a before-image that is kept in memory."""

    block: tuple[int, str, str, int]
    markets: list[_WrittenMarket]
    digest: str = ""


_written: Final = msgspec.json.Decoder(_Written).decode


def decode_written(data: bytes) -> Written:
    """What is remembered of a before-image, without decoding its candles."""
    written = _written(data)
    trades = {MarketId(market.s): market.trades for market in written.markets if market.trades}
    return Written(BlockRef(*written.block), trades, written.digest)


def decode_undo(data: bytes) -> BlockUndo:
    """Inverse of `encode_undo`."""
    fields = orjson.loads(data)
    return BlockUndo(
        BlockRef(*fields["block"]),
        fields["asOf"],
        tuple(_decode_market_undo(m) for m in fields["markets"]),
        fields.get("digest", ""),
        decode_alert_undo(fields["alerts"]) if "alerts" in fields else AlertUndo(),
    )


def _decode_market_undo(fields: Mapping[str, Any]) -> MarketUndo:
    market = MarketId(fields["s"])
    record = fields["record"]
    last = fields["last"]
    return MarketUndo(
        market,
        fields["created"],
        None if record is None else decode_market(market, record),
        fields["trades"],
        None if last is None else Decimal(last),
        fields["changed"],
        tuple(
            (interval, open_time, None if before is None else decode_candle(before, *fields["decimals"]))
            for interval, open_time, before in fields["candles"]
        ),
    )

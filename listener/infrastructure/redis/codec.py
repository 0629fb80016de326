"""Between entities and what Redis stores. Amounts become decimal strings here and nowhere else."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson

from listener.application.state import BlockUndo, MarketUndo
from listener.domain.entities import Candle, Market, MarketStats, Trade
from listener.domain.value_objects import (
    Address,
    BlockRef,
    MarketId,
    TradeId,
    format_decimal,
    format_units,
    parse_units,
)

Fields = dict[str, str | int]


def candle_fields(candle: Candle, market: Market) -> dict[str, str | int]:
    """A candle as in the public contract."""
    base, quote = market.base_decimals, market.quote_decimals
    fields: Fields = {
        "t": candle.open_time,
        "o": format_decimal(candle.open),
        "h": format_decimal(candle.high),
        "l": format_decimal(candle.low),
        "c": format_decimal(candle.close),
    }
    if candle.previous_close is not None:
        fields["pc"] = format_decimal(candle.previous_close)
    fields |= {
        "v": format_units(candle.base, base),
        "q": format_units(candle.quote, quote),
        "V": format_units(candle.bought_base, base),
        "Q": format_units(candle.bought_quote, quote),
        "n": candle.trades,
        "N": candle.buys,
        "f": str(candle.first),
        "L": str(candle.last),
    }
    return fields


def encode_candle(candle: Candle, market: Market) -> bytes:
    """A candle as a member of its ZSET."""
    return orjson.dumps(candle_fields(candle, market))


def decode_candle(data: bytes | Mapping[str, Any], base_decimals: int, quote_decimals: int) -> Candle:
    """Inverse of `encode_candle`."""
    fields: Mapping[str, Any] = orjson.loads(data) if isinstance(data, bytes) else data
    previous = fields.get("pc")
    return Candle(
        fields["t"],
        Decimal(fields["o"]),
        Decimal(fields["h"]),
        Decimal(fields["l"]),
        Decimal(fields["c"]),
        parse_units(fields["v"], base_decimals),
        parse_units(fields["q"], quote_decimals),
        parse_units(fields["V"], base_decimals),
        parse_units(fields["Q"], quote_decimals),
        fields["n"],
        fields["N"],
        TradeId.parse(fields["f"]),
        TradeId.parse(fields["L"]),
        None if previous is None else Decimal(previous),
    )


def encode_trade(trade: Trade, market: Market) -> bytes:
    """A trade as an element of its LIST and as an item of `trade_update`."""
    fields: Fields = {
        "id": str(trade.id),
        "s": trade.market,
        "t": trade.timestamp,
        "b": trade.id.block,
        "bh": trade.block_hash,
        "li": trade.id.log_index,
        "tx": trade.tx_hash,
        "side": "buy" if trade.is_buy else "sell",
        "trader": trade.trader,
        "p": format_decimal(trade.price),
        "xp": format_decimal(trade.execution_price),
    }
    if trade.spot_price is not None:
        fields["sp"] = format_decimal(trade.spot_price)
    fields["v"] = format_units(trade.base, market.base_decimals)
    fields["q"] = format_units(trade.quote, market.quote_decimals)
    if trade.fee is not None:
        fields["fee"] = format_units(trade.fee, market.quote_decimals)
    return orjson.dumps(fields)


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
    base, quote, window = market.base_decimals, market.quote_decimals, stats.window
    fields: Fields = {
        "openTime": stats.open_time,
        "closeTime": stats.close_time,
        "openPrice": format_decimal(stats.open_price),
        "highPrice": format_decimal(window.high if window else stats.last_price),
        "lowPrice": format_decimal(window.low if window else stats.last_price),
        "lastPrice": format_decimal(stats.last_price),
        "priceChange": format_decimal(stats.price_change),
        "priceChangePercent": format_decimal(stats.price_change_percent),
        "volume": format_units(window.base if window else 0, base),
        "quoteVolume": format_units(window.quote if window else 0, quote),
        "count": window.trades if window else 0,
        "buyCount": window.buys if window else 0,
        "sellCount": window.trades - window.buys if window else 0,
        "buyVolume": format_units(window.bought_base if window else 0, base),
        "sellVolume": format_units(window.base - window.bought_base if window else 0, base),
    }
    average = stats.weighted_average_price(market.price_exponent)
    if average is not None:
        fields["weightedAvgPrice"] = format_decimal(average)
    return fields


STATS_INTEGERS = frozenset({"openTime", "closeTime", "count", "buyCount", "sellCount"})
MARKET_INTEGERS = frozenset({"baseDecimals", "quoteDecimals", "createdBlock", "createdAt"})


def encode_undo(undo: BlockUndo, markets: Mapping[MarketId, Market]) -> bytes:
    """A before-image. Candles are stored as in the contract, with the decimals to read them."""
    block = undo.block
    return orjson.dumps(
        {
            "block": [block.number, block.hash, block.parent_hash, block.timestamp],
            "asOf": undo.as_of,
            "digest": undo.digest,
            "markets": [_undo_fields(market, markets[market.market]) for market in undo.markets],
        }
    )


def _undo_fields(undo: MarketUndo, market: Market) -> dict[str, object]:
    return {
        "s": undo.market,
        "decimals": [market.base_decimals, market.quote_decimals],
        "created": undo.created,
        "record": None if undo.record is None else market_fields(undo.record),
        "trades": undo.trades,
        "last": None if undo.last_price is None else format_decimal(undo.last_price),
        "changed": undo.changed,
        "candles": [
            [interval, open_time, None if before is None else candle_fields(before, market)]
            for interval, open_time, before in undo.candles
        ],
    }


def decode_undo(data: bytes) -> BlockUndo:
    """Inverse of `encode_undo`."""
    fields = orjson.loads(data)
    return BlockUndo(
        BlockRef(*fields["block"]),
        fields["asOf"],
        tuple(_decode_market_undo(m) for m in fields["markets"]),
        fields.get("digest", ""),
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

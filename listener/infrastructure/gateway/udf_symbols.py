"""Markets, resolutions and price formats in the words of TradingView's charting library.

Source: https://www.tradingview.com/charting-library-docs/latest/connecting_data/UDF and
.../connecting_data/Symbology (`LibrarySymbolInfo`).
"""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Final

from listener.domain.value_objects import DAY_MS, MINUTE_MS, Interval

DIGITS: Final = 6
"""Significant digits of a price on the chart's axis."""
DECIMALS_LEAST: Final = 2
DECIMALS_MOST: Final = 24
"""More decimals than these the library refuses to format."""
WITHOUT_PRICE: Final = 9
"""Decimals of a market that has never traded."""
SYMBOL_CHARS_MOST: Final = 128
"""Longest symbol, ticker or search text that is looked at."""

TYPE: Final = "crypto"
SESSION: Final = "24x7"
TIMEZONE: Final = "Etc/UTC"

_TICKER: Final = re.compile(r"0[xX][0-9a-fA-F]{1,64}")


def resolution_of(interval: Interval) -> str:
    """`1` to `720` for minutes, `1D` and `1W`: how the library calls an interval."""
    if interval.ms < DAY_MS:
        return str(interval.ms // MINUTE_MS)
    return "1W" if interval.ms > DAY_MS else "1D"


def resolutions(intervals: Sequence[str]) -> dict[str, Interval]:
    """Intervals by every name that the library may ask for them, shortest first.

    `D` and `W` are what older versions of it say for `1D` and `1W`.
    """
    found: dict[str, Interval] = {}
    for interval in sorted((Interval.parse(name) for name in intervals), key=lambda each: each.ms):
        name = resolution_of(interval)
        found[name] = interval
        if name in {"1D", "1W"}:
            found[name[1:]] = interval
    return found


def listed(known: Mapping[str, Interval]) -> list[str]:
    """The resolutions to offer: each once, under its full name."""
    return [name for name, interval in known.items() if name == resolution_of(interval)]


def ticker_of(symbol: str) -> str | None:
    """The market id in a ticker, without the exchange that may stand before it; None if it is a name.

    The library shows names in capitals and may ask so; ids are lower-case hex.
    """
    text = symbol.rpartition(":")[2]
    return text.lower() if _TICKER.fullmatch(text) else None


def decimals_of(price: str | None) -> int:
    """Decimals that show `DIGITS` significant digits of a price."""
    try:
        number = Decimal(price) if price else Decimal(0)
    except InvalidOperation:
        number = Decimal(0)
    return _decimals_at(number.adjusted()) if number > 0 else WITHOUT_PRICE


def _decimals_at(exponent: int) -> int:
    return min(max(DIGITS - 1 - exponent, DECIMALS_LEAST), DECIMALS_MOST)


def _plain(exponent: int) -> str:
    return f"{Decimal(1).scaleb(exponent):f}"


def _variable_ticks() -> str:
    finest = DIGITS - 1 - DECIMALS_MOST
    coarsest = DIGITS - 1 - DECIMALS_LEAST
    steps = [f"{_plain(-_decimals_at(e))} {_plain(e + 1)}" for e in range(finest, coarsest)]
    return " ".join([*steps, _plain(-DECIMALS_LEAST)])


VARIABLE_TICKS: Final = _variable_ticks()
"""`tick limit tick limit … tick`: up to each limit, prices have the tick before it. From 1e-24 to 0.01."""


def display_name(record: Mapping[str, object]) -> str:
    """`SYMBOL/QUOTE`, without colons: the library reads one as the end of an exchange's name."""
    symbol, quote = str(record.get("symbol") or "?"), str(record.get("quoteSymbol") or "")
    return (f"{symbol}/{quote}" if quote else symbol).replace(":", "-")


def _description(market: str, record: Mapping[str, object]) -> str:
    name = str(record.get("name") or record.get("symbol") or "")
    return f"{name} {market}".strip()


def symbol_info(
    market: str,
    record: Mapping[str, object],
    stats: Mapping[str, object] | None,
    known: Mapping[str, Interval],
) -> dict[str, object]:
    """A `LibrarySymbolInfo`.

    Bars are sparse, as everywhere: `has_empty_bars` is false, so that history, live bars and REST agree on
    which bars there are. `pricescale` fits the last price; `variable_tick_size` fits all of them.
    """
    offered = listed(known)
    price = stats.get("lastPrice") if stats else None
    venue = str(record.get("venue") or "")
    weekly = "1W" in known
    return {
        "name": display_name(record),
        "ticker": market,
        "description": _description(market, record),
        "type": TYPE,
        "exchange": venue,
        "listed_exchange": venue,
        "session": SESSION,
        "timezone": TIMEZONE,
        "format": "price",
        "minmov": 1,
        "minmove2": 0,
        "pricescale": _scale(decimals_of(str(price) if price else None)),
        "variable_tick_size": VARIABLE_TICKS,
        "has_intraday": any(interval.ms < DAY_MS for interval in known.values()),
        "intraday_multipliers": [name for name in offered if name.isdecimal()],
        "has_daily": "1D" in known,
        "daily_multipliers": ["1"] if "1D" in known else [],
        "has_weekly_and_monthly": weekly,
        "weekly_multipliers": ["1"] if weekly else [],
        "monthly_multipliers": [],
        "has_empty_bars": False,
        "supported_resolutions": offered,
        "visible_plots_set": "ohlcv",
        "volume_precision": 2,
        "data_status": "streaming",
        "currency_code": str(record.get("quoteSymbol") or ""),
        "library_custom_fields": {key: record.get(key) for key in ("token", "quote", "status", "createdAt")},
    }


def _scale(decimals: int) -> int | float:
    """`10 ** decimals`; beyond 2**53 as a float, which is all that a browser has for it."""
    scale = 10**decimals
    return scale if scale <= 2**53 else float(scale)


def search_result(market: str, record: Mapping[str, object]) -> dict[str, object]:
    """A `SearchSymbolResultItem`."""
    name = display_name(record)
    return {
        "symbol": name,
        "full_name": name,
        "ticker": market,
        "description": _description(market, record),
        "exchange": str(record.get("venue") or ""),
        "type": TYPE,
    }


def quote(symbol: str, record: Mapping[str, object], stats: Mapping[str, object] | None) -> dict[str, object]:
    """A `QuoteData`: `n` is the symbol as it was asked for. A curve has no order book: no `bid`, no `ask`."""
    values: dict[str, object] = {
        "short_name": display_name(record),
        "exchange": str(record.get("venue") or ""),
        "description": str(record.get("name") or ""),
        "original_name": symbol,
    }
    for name, field in QUOTE_FIELDS.items():
        figure = stats.get(field) if stats else None
        if figure is not None:
            values[name] = float(str(figure))
    return {"s": "ok", "n": symbol, "v": values}


QUOTE_FIELDS: Final = {
    "lp": "lastPrice",
    "ch": "priceChange",
    "chp": "priceChangePercent",
    "open_price": "openPrice",
    "high_price": "highPrice",
    "low_price": "lowPrice",
    "prev_close_price": "openPrice",
    "volume": "volume",
}
"""Ours by the library's names; its day is our rolling one."""

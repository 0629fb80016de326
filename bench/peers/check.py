"""Whether a peer's tables hold what they must."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from bench.peers.indexers import NUMBERS, Tables
from bench.peers.postgres import Postgres
from bench.workload import DECIMALS, Workload, address
from tests import oracle

DAY_S: Final = 86_400
TOLERANCE: Final = 1e-12
"""Of prices: peers keep them as doubles."""
UNIT: Final = 10**DECIMALS

Row = Sequence[str]


def differences(
    postgres: Postgres, tables: Tables, workload: Workload, expected: oracle.Expected, markets: set[int]
) -> list[str]:
    """What is wrong: totals over all markets, candles and figures of a sample of them."""
    tokens = [address("token", market) for market in sorted(markets)]
    chosen = ", ".join(f"'{token}'" for token in tokens)
    found = total_differences(postgres, tables, workload)
    rows = postgres.rows(f"SELECT * FROM ({tables.candles}) AS found WHERE token IN ({chosen})")  # noqa: S608
    found += candle_differences(rows, tokens, expected)
    key = tables.stats.split()[1].strip(",")
    rows = postgres.rows(f"SELECT * FROM ({tables.stats}) AS found WHERE {key} IN ({chosen})")  # noqa: S608
    return found + stats_differences(rows, tokens, expected)


def total_differences(postgres: Postgres, tables: Tables, workload: Workload) -> list[str]:
    """Trades in all daily candles and in all figures, and markets."""
    daily = f"SELECT coalesce(sum(trades), 0) FROM ({tables.candles}) AS found WHERE seconds = {DAY_S}"  # noqa: S608
    trades = workload.shape.trades
    wanted = {
        "trades in daily candles": (daily, trades),
        "trades in figures": (tables.stored, trades),
        "markets": (tables.markets, len(workload.announced)),
    }
    counted = {name: int(postgres.rows(query)[0][0]) for name, (query, _) in wanted.items()}
    return [
        f"{counted[name]} {name} instead of {number}"
        for name, (_, number) in wanted.items()
        if counted[name] != number
    ]


def candle_differences(rows: Sequence[Row], tokens: Sequence[str], expected: oracle.Expected) -> list[str]:
    """Every candle of some markets."""
    stored = {(token, int(seconds), int(at)): numbers for token, seconds, at, *numbers in rows}
    wanted = {
        (token, oracle.interval_ms(interval) // 1000, candle["t"] // 1000): candle
        for token in tokens
        for interval in expected.intervals
        for candle in expected.candles[token, interval]
    }
    found = [f"candle {key} is missing" for key in wanted.keys() - stored.keys()]
    found += [f"candle {key} should not be there" for key in stored.keys() - wanted.keys()]
    for key in wanted.keys() & stored.keys():
        names = ("o", "h", "l", "c", "v", "q", "n")
        wrong = [
            f"candle {key}: {label} is {text} instead of {wanted[key][name]}"
            for label, name, text in zip(NUMBERS, names, stored[key], strict=True)
            if not equal(name, text, str(wanted[key][name]))
        ]
        found += wrong
    return found


def stats_differences(rows: Sequence[Row], tokens: Sequence[str], expected: oracle.Expected) -> list[str]:
    """Volumes, number of trades and last price of some markets."""
    stored = {token: numbers for token, *numbers in rows}
    found = []
    for token in tokens:
        ticks = expected.ticks[token]
        volume, quote_volume = (sum(amounts, Fraction(0)) for amounts in zip(*_amounts(ticks), strict=True))
        last = oracle.decimal_string(ticks[-1].price)
        wanted = (
            ("v", oracle.decimal_string(volume)),
            ("q", oracle.decimal_string(quote_volume)),
            ("n", str(len(ticks))),
            ("c", last),
        )
        numbers = stored.get(token, ("nothing",) * len(wanted))
        found += [
            f"{token}: {name} is {text} instead of {right}"
            for (name, right), text in zip(wanted, numbers, strict=True)
            if text == "nothing" or not equal(name, text, right)
        ]
    return found


def _amounts(ticks: Sequence[oracle.Tick]) -> list[tuple[Fraction, Fraction]]:
    return [(tick.base, tick.quote) for tick in ticks]


def equal(name: str, stored: str, wanted: str) -> bool:
    """Whether a number is right: prices nearly, amounts (kept in the smallest unit) and counts exactly."""
    if name in {"v", "q"}:
        return int(stored) == Fraction(wanted) * UNIT
    if name == "n":
        return int(stored) == int(wanted)
    return abs(float(stored) - float(wanted)) <= TOLERANCE * float(wanted)

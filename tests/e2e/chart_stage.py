"""A backend with its chart page on a stage: Redis as a listener leaves it, and a listener played by hand.

It takes no chain, so that a test has markets, gaps and histories of any length within a second.
"""

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import redis
import socketio

from listener.demo.processes import Child, start_backend, start_valkey

CHAIN_ID: Final = 31337
TOKEN: Final = "token-of-the-stage"
INTERVALS: Final = ("1m", "5m", "1h")
MINUTE_MS: Final = 60_000
START_MS: Final = 1_767_225_600_000
EPOCH: Final = 1_767_225_600_123
CALL_S: Final = 5
CURVE: Final[dict[str, Any]] = {
    "venue": "curve",
    "quote": f"0x{0:040x}",
    "quoteSymbol": "ETH",
    "baseDecimals": 18,
    "quoteDecimals": 18,
    "successor": "",
    "emitter": f"0x{1:040x}",
    "status": "trading",
}


def plain(value: Decimal) -> str:
    """A decimal of the contract: no exponent, no trailing zeros."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def market_id(number: int) -> str:
    """An address."""
    return f"0x{0xA0000000 + number:040x}"


def candles_with_gaps(count: int, *, seed: int = 3, price: str = "0.0000000015") -> list[dict[str, Any]]:
    """Minutes of a quiet market, oldest first: often the next one is hours away, at times a week."""
    chance = random.Random(seed)
    at, close = START_MS, Decimal(price)
    found: list[dict[str, Any]] = []
    for number in range(count):
        opened = (close * Decimal(chance.randrange(950, 1050)) / 1000).quantize(Decimal("1e-16"))
        ended = (opened * Decimal(chance.randrange(950, 1050)) / 1000).quantize(Decimal("1e-16"))
        candle = {
            "t": at,
            "o": plain(opened),
            "h": plain(max(opened, ended)),
            "l": plain(min(opened, ended)),
            "c": plain(ended),
            **({"pc": plain(close)} if found else {}),
            "v": "1000",
            "q": f"0.{chance.randrange(1, 99):02}",
            "V": "600",
            "Q": "0.005",
            "n": 3,
            "N": 2,
            "f": f"{number}-0",
            "L": f"{number}-2",
        }
        found.append(candle)
        close = ended
        at += MINUTE_MS * chance.choice((1, 1, 1, 1, 1, 2, 3, 240, 10_080 if number % 50 == 0 else 1))
    return found


class Stage:
    """Valkey, the backend, and the listener's side of the connection.

    Args:
        redis_port: of the Valkey.
        directory: where the backend logs.
    """

    def __init__(self, redis_port: int, directory: Path) -> None:
        self.database = redis.Redis(port=redis_port, decode_responses=True)
        self.redis_port = redis_port
        self.directory = directory
        self.backend = self._start(0)
        self.listener: socketio.Client | None = None
        self.seq = 0

    def _start(self, port: int) -> Child:
        url = f"redis://127.0.0.1:{self.redis_port}/0"
        log = self.directory / "backend.log"
        return start_backend(url, CHAIN_ID, TOKEN, port, log, OHLCV_INTERVALS=",".join(INTERVALS))

    @property
    def address(self) -> str:
        """Of the page."""
        return self.backend.found

    def restart_backend(self) -> None:
        """Start the backend again where it was."""
        self.backend = self._start(int(self.address.rpartition(":")[2]))

    def connect(self) -> None:
        """Let a listener come."""
        self.listener = socketio.Client(reconnection=False, handle_sigint=False)
        self.listener.connect(
            self.address, auth={"token": TOKEN}, transports=["polling"], wait_timeout=CALL_S
        )

    def disconnect(self) -> None:
        """Let the listener go."""
        if self.listener:
            self.listener.disconnect()
        self.listener = None

    def send(self, event: str, *items: Mapping[str, Any]) -> None:
        """Deliver an event, with the next row's number.

        Raises:
            AssertionError: the backend does not take it.
        """
        self.seq += 1
        head = {"v": 1, "chain": CHAIN_ID, "stream": str(CHAIN_ID), "epoch": EPOCH}
        message = {**head, "first": self.seq, "seq": self.seq, "items": list(items)}
        assert self.listener
        answer = self.listener.call(event, message, timeout=CALL_S)
        assert answer == {"ok": True}

    def add_market(self, number: int, symbol: str, name: str, *, traded: bool = True, **stats: str) -> str:
        """Write a market; its id. The higher the number, the newer it is."""
        market = market_id(number)
        created = START_MS + number * MINUTE_MS
        record: dict[Any, Any] = {**CURVE, "token": market, "name": name, "symbol": symbol}
        record |= {"creator": f"0x{2:040x}", "createdBlock": number + 1, "createdAt": created}
        self.database.hset(self._key("market", market), mapping=record)
        self.database.zadd(f"markets:{{{CHAIN_ID}}}", {market: created})
        if traded:
            self.database.hset(self._key("stats", market), mapping=stats_of(number) | stats)
        return market

    def record(self, market: str) -> dict[str, Any]:
        """A market as events carry it."""
        stored: Any = self.database.hgetall(self._key("market", market))
        return {"s": market, **stored} | {name: int(stored[name]) for name in ("createdBlock", "createdAt")}

    def remove_market(self, market: str) -> None:
        """Undo a creation."""
        self.database.delete(self._key("market", market), self._key("stats", market))
        self.database.zrem(f"markets:{{{CHAIN_ID}}}", market)

    def put_candles(self, market: str, candles: Sequence[Mapping[str, Any]], interval: str = "1m") -> None:
        """Write candles in place of those of their times."""
        key = self._key("candles", market) + f":{interval}"
        with self.database.pipeline() as commands:
            for candle in candles:
                commands.zremrangebyscore(key, candle["t"], candle["t"])
                commands.zadd(key, {json.dumps(candle): candle["t"]})
            commands.execute()

    def put_trades(self, market: str, count: int) -> list[dict[str, Any]]:
        """Write the newest trades of a market; they, newest first."""
        trades = [trade_of(market, number) for number in reversed(range(count))]
        self.database.delete(self._key("trades", market))
        self.database.rpush(self._key("trades", market), *map(json.dumps, trades))
        return trades

    def close(self) -> None:
        """Stop what was started."""
        self.disconnect()
        self.backend.stop()
        self.database.close()

    def _key(self, kind: str, market: str) -> str:
        return f"{kind}:{{{CHAIN_ID}}}:{market}"


def stats_of(number: int) -> dict[Any, Any]:
    """24 h figures; the lower the number, the more volume."""
    return {
        "openPrice": "0.000000001",
        "highPrice": "0.000000002",
        "lowPrice": "0.000000001",
        "lastPrice": "0.0000000015",
        "priceChange": "0.0000000005",
        "priceChangePercent": str(50 - 10 * number),
        "weightedAvgPrice": "0.0000000014",
        "volume": "100000",
        "quoteVolume": plain(Decimal(1000) / (number + 1)),
        "count": "40",
        "buyVolume": "60000",
        "sellVolume": "40000",
        "buyCount": "25",
        "sellCount": "15",
        "openTime": str(START_MS),
        "closeTime": str(START_MS + 86_400_000 - 1),
    }


def trade_of(market: str, number: int) -> dict[str, Any]:
    """One trade a block; every third is a sale."""
    return {
        "id": f"{number}-0",
        "s": market,
        "t": START_MS + number * 1_000,
        "b": number,
        "bh": f"0x{number:064x}",
        "li": 0,
        "tx": f"0x{number + 7:064x}",
        "side": "sell" if number % 3 == 0 else "buy",
        "trader": f"0x{9:040x}",
        "p": "0.0000000015",
        "xp": "0.0000000015",
        "v": str(1_000 * (number + 1)),
        "q": plain(Decimal(number + 1) / 1000),
    }


def power_of(price: str) -> int:
    """By which power of ten the page moves prices of this size before it draws them."""
    return -math.floor(math.log10(float(price)))


@contextmanager
def open_stage(directory: Path) -> Iterator[Stage]:
    """A stage that ends with the block."""
    with start_valkey(directory / "valkey") as valkey:
        stage = Stage(valkey.port, directory)
        try:
            yield stage
        finally:
            stage.close()

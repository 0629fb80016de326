"""Holds the sizing formula of docs/operators.md against a real Redis or Valkey that a listener has filled.

    python -m bench.sizing redis://127.0.0.1:6379/0 <chain id>

Counts markets, candles, trades, rows and before-images, and prints what the formula says of them beside
`used_memory` of the server, which should hold nothing else. Reads only.
"""

import sys
from typing import Final

import redis

from listener.infrastructure.redis.keys import Keys

SERVER: Final = 1_500_000
"""Bytes of an empty server."""
MARKET: Final = 1_500
"""Bytes of a market: its record, its figures, its places in three registries."""
SERIES: Final = 720
"""Bytes of one of its series before the first candle."""
CANDLE: Final = 432
TRADE: Final = 540


def counts(client: "redis.Redis", keys: Keys) -> dict[str, int]:
    """What is stored, by kind, and the bytes of what is not counted by pieces."""
    markets = [market.decode() for market in client.zrange(keys.markets, 0, -1)]
    intervals = (client.hget(keys.settings, "setting:OHLCV_INTERVALS") or b"").decode().split(",")
    found = {"markets": len(markets), "series": 0, "candles": 0, "trades": 0}
    for market in markets:
        pipe = client.pipeline(transaction=False)
        for interval in intervals:
            pipe.zcard(keys.candles(market, interval))
        pipe.llen(keys.trades(market))
        *candles, trades = pipe.execute()
        found["series"] += sum(map(bool, candles))
        found["candles"] += sum(candles)
        found["trades"] += trades
    for name, key in (("outbox", keys.outbox), ("undo", keys.undo)):
        found[f"{name}_bytes"] = int(client.memory_usage(key, samples=0) or 0)
    return found


def predicted(found: dict[str, int]) -> int:
    """Bytes, by the formula."""
    return (
        SERVER
        + found["markets"] * MARKET
        + found["series"] * SERIES
        + found["candles"] * CANDLE
        + found["trades"] * TRADE
        + found["outbox_bytes"]
        + found["undo_bytes"]
    )


def main() -> None:
    """Count, and print the comparison."""
    url, chain_id = sys.argv[1], int(sys.argv[2])
    with redis.Redis.from_url(url) as client:
        found = counts(client, Keys(chain_id))
        used = int(client.info("memory")["used_memory"])
    says = predicted(found)
    print(", ".join(f"{name} {value:,}" for name, value in found.items()))
    print(f"used {used / 1e6:.1f} MB, predicted {says / 1e6:.1f} MB, off by {100 * (says / used - 1):+.1f} %")


if __name__ == "__main__":
    main()

"""Reading and removing a stream from the command line."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import REMOVING, Keys

SCAN_COUNT: Final = 1_000
MARK: Final = """
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], ARGV[1], '1')
return {1}
"""
SYMBOLS_SEARCHED: Final = 1_000


async def reset_stream(database: Database, keys: Keys) -> int:
    """Remove every key of the stream; how many there were.

    The head is replaced first and goes last, so that nothing is built on what a crash in between leaves.
    """
    removed = int(await database.run("EXISTS", keys.head))
    await database.run_script(MARK, [keys.head], [REMOVING])
    cursor: bytes | int = 0
    while True:
        cursor, found = await database.run("SCAN", cursor, "MATCH", keys.pattern, "COUNT", SCAN_COUNT)
        names = [name for name in found if name != keys.head.encode()]
        if names:
            removed += int(await database.run("UNLINK", *names))
        if int(cursor) == 0:
            break
    others = (keys.partitions,) if not keys.generation else ()
    removed += int(await database.run("DEL", *others)) if others else 0
    await database.run("DEL", keys.head)
    return removed


async def read_candles(
    database: Database, keys: Keys, market: str, interval: str, limit: int
) -> list[Mapping[str, Any]]:
    """The newest `limit` candles as in the public contract, oldest first."""
    members = await database.run("ZRANGE", keys.candles(market, interval), -limit, -1)
    return [orjson.loads(member) for member in members]


async def find_market(database: Database, keys: Keys, wanted: str) -> str | None:
    """A market's id from its id or, among the newest, its symbol."""
    wanted = wanted.lower()
    if await database.run("EXISTS", keys.market(wanted)):
        return wanted
    newest = await database.run("ZRANGE", keys.markets, 0, SYMBOLS_SEARCHED - 1, "REV")
    ids = [member.decode() for member in newest]
    symbols = await database.run_all(("HGET", keys.market(market), "symbol") for market in ids)
    for market, symbol in zip(ids, symbols, strict=True):
        if symbol is not None and symbol.decode().lower() == wanted:
            return str(market)
    return None

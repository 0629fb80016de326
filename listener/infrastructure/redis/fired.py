"""The newest alerts that fired: a list of records as they were told, newest first.

A reorg tells a record again with `retracted`, and the alert may fire anew under the same id: what is told
last of an id holds.
"""

from collections.abc import Iterable
from typing import Final

import orjson

from listener.infrastructure.redis.client import Command, Database
from listener.infrastructure.redis.keys import Keys

FIRED_KEPT: Final = 1_000
"""Records in the list, retractions among them; some 400 bytes each."""


def reading(keys: Keys) -> Command:
    """The command that reads the list."""
    return ("LRANGE", keys.fired, 0, FIRED_KEPT - 1)


def newest(told: Iterable[bytes], limit: int, market: str = "", rule: str = "") -> list[bytes]:
    """Alerts as they stand, newest first, each id once.

    Args:
        told: the list.
        limit: how many at most.
        market: of this one; empty: of any.
        rule: of this one; empty: of any.
    """
    found: dict[str, bytes] = {}
    for record in told:
        fields = orjson.loads(record)
        if (market and fields["s"] != market) or (rule and fields["rule"] != rule):
            continue
        found.setdefault(fields["id"], record)
        if len(found) == limit:
            break
    return list(found.values())


class FiredAlerts:
    """Reads them; by reading commands only.

    Args:
        database: the server; may be a replica.
        keys: names of the stream's keys.
    """

    def __init__(self, database: Database, keys: Keys) -> None:
        self._database = database
        self._keys = keys

    async def newest(self, limit: int, market: str = "", rule: str = "") -> list[bytes]:
        """Records as JSON, see `newest`.

        Raises:
            StoreUnavailable, StoreMisused: see `Database`.
        """
        return newest(await self._database.run(*reading(self._keys)), limit, market, rule)

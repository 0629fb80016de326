"""Alert rules in Redis: made, listed and removed by people, followed by the one who writes the stream.

A rule is in four places, changed together by a script: the HASH of rules, the order of all ids, the order of
those of its market, and a short log of changes whose length is counted by a version. States belong to the
writer of the stream alone: it writes them with its commits, and removes those of rules that are gone.
"""

import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Final, NamedTuple

from listener.application.errors import StoreUnavailable
from listener.application.interfaces import RuleChanges
from listener.domain.alerts import AlertCondition, AlertKind, AlertRule, StateKey
from listener.domain.errors import TooManyRules, UnknownMarket
from listener.domain.value_objects import MarketId, Timestamp
from listener.infrastructure.redis.alert_codec import (
    decode_rule,
    decode_state_key,
    encode_rule,
    encode_state_key,
)
from listener.infrastructure.redis.client import Database, Word
from listener.infrastructure.redis.keys import ALL_MARKETS, Keys

MOST_RULES: Final = 100_000
MOST_FOR_ALL: Final = 100
"""Rules for each market are looked at with every trade."""
PAGE_MOST: Final = 1_000
"""Most rules of one page."""
LOG_KEPT: Final = 1_000
"""Changes that a writer can miss before it reads all rules again."""
SCAN_COUNT: Final = 1_000
FORGOTTEN_TOGETHER: Final = 2_000
"""States removed by one command."""

CREATE: Final = """
local full = redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[3])
if ARGV[4] ~= '' then
  full = full or redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[4])
end
if full then return {0} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
redis.call('ZADD', KEYS[3], 0, ARGV[1])
redis.call('LPUSH', KEYS[4], ARGV[1])
redis.call('LTRIM', KEYS[4], 0, ARGV[5] - 1)
return {1, redis.call('INCR', KEYS[5])}
"""
"""KEYS rules, ids, ids of the market, log, version. ARGV id, rule, most rules, most of this market ('': no
bound of its own), changes kept."""

DELETE: Final = """
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return {0} end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('LPUSH', KEYS[4], ARGV[1])
redis.call('LTRIM', KEYS[4], 0, ARGV[2] - 1)
return {1, redis.call('INCR', KEYS[5])}
"""
"""KEYS as for `CREATE`. ARGV id, changes kept."""


class RulePage(NamedTuple):
    """Rules in the order in which they were made.

    Attributes:
        after: where the next page begins; None: this is the last.
        total: how many there are on all pages.
    """

    rules: list[AlertRule]
    after: str | None
    total: int


def new_id(now: Timestamp) -> str:
    """An id that nobody had before; later ones sort behind."""
    return f"{now:011x}{secrets.token_hex(4)}"


class RedisAlertRules:
    """The rules of one stream, for people, and `AlertStore` for its writer.

    Every method raises `StoreUnavailable` where Redis is away.

    Args:
        database: the server.
        keys: names of the stream's keys.
        new_id: makes ids.
    """

    def __init__(self, database: Database, keys: Keys, new_id: Callable[[Timestamp], str] = new_id) -> None:
        self._database = database
        self._keys = keys
        self._new_id = new_id

    async def create(self, condition: AlertCondition, now: Timestamp) -> AlertRule:
        """Make a rule; the writer knows it within `REFRESH_S`.

        Raises:
            TooManyRules: there are `MOST_RULES`, or `MOST_FOR_ALL` for all markets.
            UnknownMarket: the market does not exist, and the rule does not wait for its creation.
            StoreUnavailable: there is no stream yet, or Redis is away.
        """
        keys, market = self._keys, condition.market
        exists: tuple[Word, ...] = ("EXISTS", keys.market(market or ""))
        head, known = await self._database.run_all([("HGET", keys.head, "number"), exists])
        if head is None:
            raise StoreUnavailable("there is no stream yet: rules can be made once the listener has started")
        if market is not None and not known and condition.kind is not AlertKind.MARKET_CREATED:
            raise UnknownMarket(f"market: there is no {market[:80]}")
        rule = AlertRule(self._new_id(now), condition, int(head), now)
        done = await self._database.run_script(
            CREATE,
            self._places(market),
            [rule.id, encode_rule(rule), MOST_RULES, "" if market else MOST_FOR_ALL, LOG_KEPT],
        )
        if not done[0]:
            raise TooManyRules(f"at most {MOST_RULES} rules, {MOST_FOR_ALL} of them for all markets")
        return rule

    async def get(self, rule_id: str) -> AlertRule | None:
        """The rule of that id."""
        data = await self._database.run("HGET", self._keys.alerts, rule_id)
        return None if data is None else decode_rule(data)

    async def page(self, after: str = "", limit: int = 100, market: MarketId | None = None) -> RulePage:
        """Rules in the order in which they were made.

        Args:
            after: the id that the page before ended with.
            limit: most rules, up to `PAGE_MOST`.
            market: only those of this market, without those for all; None: all rules.
        """
        ids_key = self._keys.alert_ids(market or "")
        limit = max(1, min(limit, PAGE_MOST))
        start = f"({after}" if after else "-"
        total, found = await self._database.run_all(
            [
                ("ZCARD", ids_key),
                ("ZRANGE", ids_key, start, "+", "BYLEX", "LIMIT", 0, limit + 1),
            ]
        )
        ids = found[:limit]
        data = await self._database.run("HMGET", self._keys.alerts, *ids) if ids else ()
        rules = [decode_rule(rule) for rule in data if rule is not None]
        return RulePage(rules, ids[-1].decode() if len(found) > limit else None, int(total))

    async def delete(self, rule_id: str) -> bool:
        """Remove a rule; whether there was one. Its states go when the writer learns of it."""
        rule = await self.get(rule_id)
        if rule is None:
            return False
        done = await self._database.run_script(
            DELETE, self._places(rule.condition.market), [rule_id, LOG_KEPT]
        )
        return bool(done[0])

    def _places(self, market: MarketId | None) -> list[str]:
        keys = self._keys
        own = keys.alert_ids(market or ALL_MARKETS)
        return [keys.alerts, keys.alert_ids(), own, keys.alert_log, keys.alert_version]

    async def rule_changes(self, after: int | None) -> RuleChanges:
        """See `AlertStore.rule_changes`."""
        keys = self._keys
        version = int(await self._database.run("GET", keys.alert_version) or 0)
        if after is None or not 0 <= version - after <= LOG_KEPT:
            return RuleChanges(version, {rule.id: rule for rule in await self._all()}, complete=True)
        if version == after:
            return RuleChanges(version, {}, complete=False)
        ids = await self._database.run("LRANGE", keys.alert_log, 0, version - after - 1)
        names = {name.decode(): None for name in ids}
        data = await self._database.run("HMGET", keys.alerts, *names) if names else ()
        rules = {
            name: None if rule is None else decode_rule(rule) for name, rule in zip(names, data, strict=True)
        }
        return RuleChanges(version, rules, complete=False)

    async def _all(self) -> list[AlertRule]:
        """Every rule, read in parts."""
        rules: dict[bytes, bytes] = {}
        async for fields in self._scan(self._keys.alerts):
            rules |= fields
        return [decode_rule(data) for data in rules.values()]

    async def alert_states(self) -> dict[StateKey, int]:
        """See `AlertStore.alert_states`."""
        states: dict[StateKey, int] = {}
        async for fields in self._scan(self._keys.alert_states):
            states |= {decode_state_key(field): int(block) for field, block in fields.items()}
        return states

    async def forget_alert_states(self, states: Iterable[StateKey]) -> None:
        """See `AlertStore.forget_alert_states`."""
        fields = [encode_state_key(key) for key in states]
        for start in range(0, len(fields), FORGOTTEN_TOGETHER):
            part = fields[start : start + FORGOTTEN_TOGETHER]
            await self._database.run("HDEL", self._keys.alert_states, *part)

    async def _scan(self, key: str) -> AsyncIterator[Mapping[bytes, bytes]]:
        """A HASH in parts; what is there all the while comes at least once."""
        cursor: bytes | int = 0
        while True:
            cursor, fields = await self._database.run("HSCAN", key, cursor, "COUNT", SCAN_COUNT)
            yield fields
            if int(cursor) == 0:
                return

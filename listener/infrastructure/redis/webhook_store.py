"""Webhook endpoints on Redis 7 or Valkey: records, states and delivery logs."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from listener.application.errors import Displaced, WebhookConflict
from listener.application.interfaces import RowId
from listener.application.webhooks import (
    ENDPOINTS_MAX,
    LOG_MAX,
    Attempt,
    Endpoint,
    EndpointState,
    Failing,
    Replay,
    Secret,
    Status,
)
from listener.domain.value_objects import Timestamp
from listener.infrastructure.redis.client import Database, Word
from listener.infrastructure.redis.keys import Keys

CREATE: Final = """
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then return {0} end
local place = '0-0'
local newest = redis.call('XREVRANGE', KEYS[5], '+', '-', 'COUNT', 1)
if newest[1] then
  place = newest[1][1]
else
  local head = redis.call('HMGET', KEYS[6], 'epoch', 'seq')
  if head[1] then place = head[1] .. '-' .. (head[2] or '0') end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[2], 'version', 1, 'status', 'enabled', 'changedAt', ARGV[4])
redis.call('HSET', KEYS[3], 'acknowledged', place, 'sending', place)
redis.call('INCR', KEYS[4])
return {1}
"""
"""KEYS: records, state, cursor, revision, outbox, head. ARGV: id, record, most endpoints, time.

It begins behind the newest row that is kept, so that nothing counts as missed."""

DELETE: Final = """
local removed = redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2], KEYS[3], KEYS[5])
redis.call('INCR', KEYS[4])
return {removed}
"""
"""KEYS: records, state, cursor, revision, log. ARGV: id."""

UPDATE: Final = """
local record = redis.call('HGET', KEYS[1], ARGV[1])
if not record then return {0} end
if ARGV[2] ~= '' and redis.call('HGET', KEYS[2], 'version') ~= ARGV[2] then return {0} end
if ARGV[3] ~= '' and record ~= ARGV[3] then return {0} end
if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], ARGV[1], ARGV[4]) end
for i = 6, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[2], ARGV[i])
  else
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  end
end
if ARGV[5] == 'operator' then redis.call('HINCRBY', KEYS[2], 'version', 1) end
if ARGV[5] ~= 'quietly' then redis.call('INCR', KEYS[3]) end
return {1}
"""
"""KEYS: records, state, revision. ARGV: id; version and record that must be there, or ''; the new record, or
''; who changes it: `operator` (delivery begins anew), `service`, or `quietly` (nobody needs to know); then
fields of the state and their values, '' to remove one."""

BEGIN_REPLAY: Final = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 or redis.call('HEXISTS', KEYS[2], 'replay') == 1 then
  return {0}
end
redis.call('HSET', KEYS[2], 'replay', ARGV[2])
redis.call('HINCRBY', KEYS[2], 'version', 1)
redis.call('INCR', KEYS[3])
return {1}
"""
"""KEYS: records, state, revision. ARGV: id, the replay."""


class RedisWebhooks:
    """`EndpointStore` and `EndpointRecords`.

    Args:
        database: the server.
        keys: names of the stream's keys.
    """

    def __init__(self, database: Database, keys: Keys) -> None:
        self._database = database
        self._keys = keys

    # ---- For delivery

    async def revision(self) -> int:
        """See `EndpointStore.revision`."""
        return int(await self._database.run("GET", self._keys.webhooks_revision) or 0)

    async def load(self) -> Mapping[str, tuple[Endpoint, EndpointState]]:
        """See `EndpointStore.load`."""
        answer = await self._database.run("HGETALL", self._keys.webhooks)
        records = {name.decode(): record for name, record in answer.items()}
        states = await self._states(list(records))
        found = {}
        for (name, record), state in zip(records.items(), states, strict=True):
            pair = _decoded(record, state)
            if pair is not None:
                found[name] = pair
        return found

    async def _states(self, endpoints: Sequence[str]) -> list[Mapping[bytes, bytes]]:
        if not endpoints:
            return []
        return await self._database.run_all(("HGETALL", self._keys.webhook_state(name)) for name in endpoints)

    async def note_failing(self, endpoint: str, version: int, failing: Failing | None) -> None:
        """See `EndpointStore.note_failing`."""
        value = _dumps(failing).decode() if failing else ""
        await self._by_service(endpoint, version, "quietly", "failing", value)

    async def note_replay(self, endpoint: str, version: int, replay: Replay | None) -> None:
        """See `EndpointStore.note_replay`."""
        value = _dumps(replay).decode() if replay else ""
        await self._by_service(endpoint, version, "quietly", "replay", value)

    async def give_up(self, endpoint: str, version: int, reason: str, now: Timestamp) -> None:
        """See `EndpointStore.give_up`."""
        fields = ("status", Status.GIVEN_UP.value, "reason", reason, "changedAt", now)
        await self._by_service(endpoint, version, "service", *fields)

    async def _by_service(self, endpoint: str, version: int, who: str, *fields: Word) -> None:
        if not await self._update(endpoint, version, "", "", who, *fields):
            raise Displaced(f"webhook {endpoint} was changed or deleted")

    async def log(self, endpoint: str, attempt: Attempt) -> None:
        """See `EndpointStore.log`."""
        key = self._keys.webhook_log(endpoint)
        await self._database.run("XADD", key, "MAXLEN", "~", LOG_MAX, "*", "d", _dumps(attempt))

    # ---- For operators

    async def count(self) -> int:
        """How many endpoints there are, enabled or not."""
        return int(await self._database.run("HLEN", self._keys.webhooks))

    async def find(self, endpoint: str) -> tuple[Endpoint, EndpointState] | None:
        """See `EndpointRecords.find`."""
        record = await self._database.run("HGET", self._keys.webhooks, endpoint)
        if record is None:
            return None
        [state] = await self._states([endpoint])
        return _decoded(record, state)

    async def create(self, endpoint: Endpoint) -> None:
        """See `EndpointRecords.create`."""
        keys = self._keys
        names = [*self._places(endpoint.id), keys.outbox, keys.head]
        words: list[Word] = [endpoint.id, _encoded(endpoint), ENDPOINTS_MAX, endpoint.created_at]
        if not (await self._database.run_script(CREATE, names, words))[0]:
            raise WebhookConflict(f"there are {ENDPOINTS_MAX} endpoints already; delete one first")

    async def delete(self, endpoint: str) -> bool:
        """See `EndpointRecords.delete`."""
        names = [*self._places(endpoint), self._keys.webhook_log(endpoint)]
        return bool((await self._database.run_script(DELETE, names, [endpoint]))[0])

    async def replace(self, before: Endpoint, after: Endpoint) -> bool:
        """See `EndpointRecords.replace`."""
        return await self._update(before.id, "", _encoded(before), _encoded(after), "operator")

    async def set_status(self, endpoint: str, status: Status, now: Timestamp) -> bool:
        """See `EndpointRecords.set_status`."""
        fields = ("status", status.value, "changedAt", now, "reason", "", "failing", "")
        return await self._update(endpoint, "", "", "", "operator", *fields)

    async def begin_replay(self, endpoint: str, replay: Replay) -> bool:
        """See `EndpointRecords.begin_replay`."""
        names = [self._keys.webhooks, self._keys.webhook_state(endpoint), self._keys.webhooks_revision]
        words: list[Word] = [endpoint, _dumps(replay)]
        return bool((await self._database.run_script(BEGIN_REPLAY, names, words))[0])

    async def attempts(self, endpoint: str, limit: int) -> list[Attempt]:
        """See `EndpointRecords.attempts`."""
        key = self._keys.webhook_log(endpoint)
        entries = await self._database.run("XREVRANGE", key, "+", "-", "COUNT", limit)
        return [_attempt(orjson.loads(fields[b"d"])) for _, fields in entries]

    def _places(self, endpoint: str) -> tuple[str, str, str, str]:
        keys = self._keys
        cursor = keys.cursor_of(consumer_of(endpoint))
        return keys.webhooks, keys.webhook_state(endpoint), cursor, keys.webhooks_revision

    async def _update(
        self, endpoint: str, version: Word, before: Word, after: Word, who: str, *fields: Word
    ) -> bool:
        names = [self._keys.webhooks, self._keys.webhook_state(endpoint), self._keys.webhooks_revision]
        words: list[Word] = [endpoint, version, before, after, who, *fields]
        return bool((await self._database.run_script(UPDATE, names, words))[0])


def consumer_of(endpoint: str) -> str:
    """Name of an endpoint's cursor in the outbox."""
    return f"webhook:{endpoint}"


def _encoded(endpoint: Endpoint) -> bytes:
    return orjson.dumps(
        {
            "id": endpoint.id,
            "url": endpoint.url,
            "events": endpoint.events,
            "secrets": [{"secret": secret.text, "until": secret.until} for secret in endpoint.secrets],
            "createdAt": endpoint.created_at,
            "note": endpoint.note,
        }
    )


def _decoded(record: bytes, state: Mapping[bytes, bytes]) -> tuple[Endpoint, EndpointState] | None:
    """A record and its state; None where they were not written by us."""
    try:
        found = orjson.loads(record)
        endpoint = Endpoint(
            found["id"],
            found["url"],
            tuple(found["events"]),
            tuple(Secret(secret["secret"], secret["until"]) for secret in found["secrets"]),
            found["createdAt"],
            found["note"],
        )
        fields = {name.decode(): value for name, value in state.items()}
        failing, replay = fields.get("failing"), fields.get("replay")
        return endpoint, EndpointState(
            int(fields["version"]),
            Status(fields["status"].decode()),
            int(fields["changedAt"]),
            fields.get("reason", b"").decode(),
            Failing(*orjson.loads(failing)) if failing else None,
            _replay(orjson.loads(replay)) if replay else None,
        )
    except (KeyError, TypeError, ValueError):
        return None


def _replay(found: Sequence[Any]) -> Replay:
    first, last, message = found
    return Replay(RowId(*first), RowId(*last), message)


def _attempt(found: Sequence[Any]) -> Attempt:
    attempt = Attempt(*found)
    first, last = attempt.batch
    return attempt._replace(batch=(RowId(*first), RowId(*last)))


def _dumps(record: tuple[object, ...]) -> bytes:
    """A named tuple, and those within it, as arrays."""
    return orjson.dumps(record, default=tuple)

"""Webhook endpoints on real servers: nobody writes over anybody, nothing is left, operators are told why."""

from collections.abc import AsyncIterator, Sequence
from typing import Final

import pytest

from listener.application.errors import Displaced, StoreMisused, WebhookConflict
from listener.application.interfaces import Cursor, Message, RowId
from listener.application.services.webhook_admin import UrlRules, WebhookAdmin
from listener.application.webhooks import (
    ENDPOINTS_MAX,
    LOG_MAX,
    Answer,
    Attempt,
    Endpoint,
    EndpointState,
    Failing,
    Parcel,
    Replay,
    Status,
)
from listener.domain.errors import InvalidValue
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.maintenance import reset_stream
from listener.infrastructure.redis.outbox import RedisOutbox
from listener.infrastructure.redis.webhook_store import RedisWebhooks, consumer_of
from listener.infrastructure.webhooks.signature import key_of
from tests.fakes.build import CHAIN_ID, MONDAY_MS
from tests.fakes.clock import FakeClock

KEYS: Final = Keys(CHAIN_ID)
DATABASE: Final = 9
URL: Final = "https://example.org/hooks"


class Bench:
    """A server with an outbox, and what stands on it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.webhooks = RedisWebhooks(database, KEYS)
        self.outbox = RedisOutbox(database, KEYS)
        self.clock = FakeClock()
        self.admin = self.under(UrlRules(insecure=False, private=False))

    def under(self, rules: UrlRules) -> WebhookAdmin:
        """An operator under other rules."""
        return WebhookAdmin(self.webhooks, self.outbox, self.clock, rules)

    async def rows(self, epoch: int, seqs: Sequence[int]) -> None:
        """Rows in the outbox."""
        for seq in seqs:
            await self.database.run("XADD", KEYS.outbox, f"{epoch}-{seq}", "e", "trade_update", "d", "{}")

    async def state(self, endpoint: Endpoint) -> EndpointState:
        """How it does."""
        found = await self.webhooks.find(endpoint.id)
        assert found is not None
        return found[1]

    async def names(self) -> set[str]:
        """All keys."""
        return {key.decode() for key in await self.database.run("KEYS", "*")}


@pytest.fixture(params=["valkey", "redis"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """An empty database."""
    port = request.getfixturevalue(f"{request.param}_port")
    database = Database.connect(f"redis://127.0.0.1:{port}/{DATABASE}", 5.0)
    await database.run("FLUSHDB")
    yield Bench(database)
    await database.close()


def line(number: int, *, first: int = 1, error: str = "") -> Attempt:
    """A line of a log."""
    parcel = Parcel(f"m{number}", Message("alert", 1, first, first, ()), b"", (RowId(1, first), RowId(1, 9)))
    return Attempt.of(parcel, Answer(500 if error else 200, error, 7), 1, MONDAY_MS + number)


async def test_an_endpoint_as_it_was_created(bench: Bench) -> None:
    """All of it comes back; it begins behind the newest row; whoever delivers is told to look."""
    await bench.rows(5, range(3, 8))
    before = await bench.webhooks.revision()
    made = await bench.admin.create(URL, ["alert", "trade_update"], "ops")
    assert await bench.webhooks.revision() > before
    assert await bench.webhooks.load() == {
        made.id: (made, EndpointState(1, Status.ENABLED, bench.clock.now()))
    }
    assert made.events == ("trade_update", "alert")
    assert len(key_of(made.secrets[0].text)) == 32
    place = await RedisOutbox(bench.database, KEYS, consumer_of(made.id)).cursor()
    assert place == Cursor(RowId(5, 7), RowId(5, 7))


@pytest.mark.parametrize(("head", "place"), [(None, RowId(0, 0)), (("9", "4"), RowId(9, 4))])
async def test_an_endpoint_before_the_first_row(
    bench: Bench, head: tuple[str, str] | None, place: RowId
) -> None:
    """It begins where the head is, or where everything begins."""
    if head:
        await bench.database.run("HSET", KEYS.head, "epoch", head[0], "seq", head[1])
    made = await bench.admin.create(URL)
    assert await RedisOutbox(bench.database, KEYS, consumer_of(made.id)).cursor() == Cursor(place, place)


async def test_there_are_only_so_many(bench: Bench) -> None:
    """One more is refused, and leaves nothing; one fewer makes room."""
    made = [await bench.admin.create(URL) for _ in range(ENDPOINTS_MAX)]
    known = await bench.names()
    with pytest.raises(WebhookConflict, match="delete one"):
        await bench.admin.create(URL)
    assert await bench.names() == known
    assert await bench.admin.delete(made[0].id)
    await bench.admin.create(URL)
    assert await bench.webhooks.count() == len(await bench.admin.endpoints()) == ENDPOINTS_MAX


async def test_nothing_is_left_of_a_deleted_one(bench: Bench) -> None:
    """Neither cursor, state nor log, whatever is noted of it afterwards by a delivery that is under way."""
    made = await bench.admin.create(URL)
    await bench.webhooks.log(made.id, line(1))
    assert await bench.admin.delete(made.id)
    with pytest.raises(Displaced):
        await bench.webhooks.note_failing(made.id, 1, Failing(1, 1, 1, "x"))
    with pytest.raises(Displaced):
        await bench.webhooks.give_up(made.id, 1, "x", 1)
    assert await bench.names() == {KEYS.webhooks_revision}
    assert not await bench.admin.delete(made.id)
    assert await bench.admin.show(made.id) is None
    assert not await bench.admin.enable(made.id)
    assert await bench.admin.rotate(made.id) is None
    assert await bench.admin.redeliver(made.id, "m1") is None
    assert await bench.names() == {KEYS.webhooks_revision}


async def test_delivery_notes_its_state(bench: Bench) -> None:
    """It fails, works, is given up; only the last is news for others."""
    made = await bench.admin.create(URL)
    before = await bench.webhooks.revision()
    failing = Failing(5, 3, 9, "HTTP 500")
    await bench.webhooks.note_failing(made.id, 1, failing)
    assert (await bench.state(made)).failing == failing
    await bench.webhooks.note_failing(made.id, 1, None)
    assert (await bench.state(made)).failing is None
    assert await bench.webhooks.revision() == before
    await bench.webhooks.give_up(made.id, 1, "it answered 410 Gone", 77)
    state = await bench.state(made)
    assert (state.status, state.reason, state.changed_at) == (Status.GIVEN_UP, "it answered 410 Gone", 77)
    assert await bench.webhooks.revision() > before


async def test_an_operator_comes_first(bench: Bench) -> None:
    """What was noted for the endpoint as it was before is refused; enabling forgets how it failed."""
    made = await bench.admin.create(URL)
    await bench.webhooks.note_failing(made.id, 1, Failing(5, 3, 9, "HTTP 500"))
    await bench.webhooks.give_up(made.id, 1, "failed", 77)
    assert await bench.admin.enable(made.id)
    state = await bench.state(made)
    assert state == EndpointState(2, Status.ENABLED, bench.clock.now())
    with pytest.raises(Displaced):
        await bench.webhooks.give_up(made.id, 1, "failed", 78)
    assert await bench.state(made) == state
    assert await bench.admin.disable(made.id)
    assert (await bench.state(made)).status is Status.DISABLED


async def test_secrets_are_rotated(bench: Bench) -> None:
    """The old one signs for a while; two operators at once do not lose each other's secret."""
    made = await bench.admin.create(URL)
    rotated = await bench.admin.rotate(made.id)
    assert rotated is not None
    assert [secret.text for secret in rotated.secrets[1:]] == [made.secrets[0].text]
    assert rotated.secrets[0] != made.secrets[0]
    assert not await bench.webhooks.replace(made, made)
    assert (await bench.webhooks.load())[made.id][0] == rotated
    for overlap_ms in (-1, 10**12):
        with pytest.raises(InvalidValue):
            await bench.admin.rotate(made.id, overlap_ms)


async def test_logs_are_bounded(bench: Bench) -> None:
    """The newest lines are kept, newest first, each as it was written."""
    made = await bench.admin.create(URL)
    for number in range(LOG_MAX + 300):
        await bench.webhooks.log(made.id, line(number, error="HTTP 500" if number % 2 else ""))
    kept = await bench.webhooks.attempts(made.id, 10_000)
    assert LOG_MAX <= len(kept) <= LOG_MAX + 128
    assert [attempt.id for attempt in kept[:3]] == [f"m{LOG_MAX + 299 - back}" for back in range(3)]
    assert kept[0] == line(LOG_MAX + 299, error="HTTP 500")
    assert await bench.admin.attempts(made.id, 2) == kept[:2]


async def test_what_may_be_redelivered(bench: Bench) -> None:
    """Rows that are kept, of an enabled endpoint, one wish at a time; everything else says why not."""
    made = await bench.admin.create(URL)
    await bench.rows(5, range(3, 8))
    await bench.rows(6, range(1, 3))
    rows = bench.admin.redeliver_rows
    for first, last, why in (
        (RowId(5, 2), RowId(5, 4), "row 5-2 is not kept; the oldest is 5-3"),
        (RowId(5, 4), RowId(5, 8), "no row 5-8"),
        (RowId(5, 4), RowId(5, 3), "behind last"),
        (RowId(7, 1), RowId(7, 1), "row 7-1 is not kept"),
    ):
        with pytest.raises(InvalidValue, match=why):
            await rows(made.id, first, last)
    await bench.admin.disable(made.id)
    with pytest.raises(WebhookConflict, match="enable it"):
        await rows(made.id, RowId(5, 3), RowId(6, 2))
    await bench.admin.enable(made.id)
    wanted = await rows(made.id, RowId(5, 3), RowId(6, 2))
    assert wanted == Replay(RowId(5, 3), RowId(6, 2)) == (await bench.state(made)).replay
    with pytest.raises(WebhookConflict, match="being redelivered"):
        await rows(made.id, RowId(5, 3), RowId(6, 2))
    version = (await bench.state(made)).version
    await bench.webhooks.note_replay(made.id, version, Replay(RowId(5, 5), RowId(6, 2), "m"))
    assert (await bench.state(made)).replay == Replay(RowId(5, 5), RowId(6, 2), "m")
    await bench.webhooks.note_replay(made.id, version, None)
    assert (await bench.state(made)).replay is None


async def test_a_message_of_the_log_may_be_redelivered(bench: Bench) -> None:
    """With the rows of its batch; one that the log does not have, or whose rows are gone, may not."""
    made = await bench.admin.create(URL)
    await bench.rows(1, range(4, 10))
    await bench.webhooks.log(made.id, line(1, first=4))
    await bench.webhooks.log(made.id, line(2, first=2))
    assert await bench.admin.redeliver(made.id, "m1") == Replay(RowId(1, 4), RowId(1, 9), "m1")
    with pytest.raises(InvalidValue, match="does not have it"):
        await bench.admin.redeliver(made.id, "m3")
    with pytest.raises(InvalidValue, match="not kept"):
        await bench.admin.redeliver(made.id, "m2")


async def test_addresses_are_checked_at_once(bench: Bench) -> None:
    """Those that a URL names as such; others when a connection is made."""
    for url in ("https://127.0.0.1/", "https://[::1]:8443/", "https://169.254.169.254/latest/meta-data"):
        with pytest.raises(InvalidValue, match="not a public address"):
            await bench.admin.create(url)
    with pytest.raises(InvalidValue, match="https://"):
        await bench.admin.create("http://example.org/")
    await bench.under(UrlRules(insecure=True, private=True)).create("http://127.0.0.1:8080/")
    assert await bench.webhooks.count() == 1


async def test_records_of_others_are_left_out(bench: Bench) -> None:
    """What was not written by us ends nothing: the others are delivered to."""
    made = await bench.admin.create(URL)
    await bench.database.run("HSET", KEYS.webhooks, "x", "not JSON", "y", '{"id":"y"}', "z", "[]")
    assert list(await bench.webhooks.load()) == [made.id]
    await bench.database.run("HSET", KEYS.webhook_state(made.id), "status", "unheard-of")
    assert await bench.webhooks.load() == {}
    assert await bench.admin.delete("x")


async def test_a_reset_leaves_nothing(bench: Bench) -> None:
    """`listener reset` removes endpoints as well, and whoever delivers notices."""
    made = await bench.admin.create(URL)
    await bench.webhooks.log(made.id, line(1))
    before = await bench.webhooks.revision()
    await reset_stream(bench.database, KEYS)
    assert await bench.names() == set()
    assert await bench.webhooks.revision() != before


async def test_a_key_of_a_foreign_type_is_told(bench: Bench) -> None:
    """That is no outage: somebody has to act."""
    await bench.database.run("SET", KEYS.webhooks, "x")
    with pytest.raises(StoreMisused):
        await bench.admin.create(URL)

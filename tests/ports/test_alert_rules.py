"""Alert rules on a real Valkey: made, listed, removed, followed, and how they stand after every commit."""

from collections.abc import AsyncIterator

import orjson
import pytest

from listener.application.errors import StoreUnavailable
from listener.application.interfaces import RowId
from listener.domain.alerts import AlertCondition, AlertRule, StateKey
from listener.domain.errors import InvalidRule, TooManyRules, UnknownMarket
from listener.domain.value_objects import MINUTE_MS, MarketId
from listener.infrastructure.redis import alert_rules
from listener.infrastructure.redis.alert_codec import decode_rule, encode_rule, rule_item
from listener.infrastructure.redis.alert_rules import RedisAlertRules, new_id
from listener.infrastructure.redis.generations import RedisGenerations
from listener.infrastructure.redis.maintenance import reset_stream
from listener.infrastructure.redis.store import RedisStore
from tests.alert_oracle import Alert
from tests.fakes.build import ETHER, MONDAY_MS, created, graduate, swap, token
from tests.fakes.writer import Writer
from tests.ports.sides import BY, KEYS, ORIGIN, OUTBOX, Side, side_on
from tests.simulation.alerts import RULES, rule_of
from tests.simulation.ledger import Ledger
from tests.simulation.timeline import Timeline

DATABASE = 12
"""Number of the logical database that these tests use."""


@pytest.fixture
async def side(valkey_port: int) -> AsyncIterator[Side]:
    """A stream with two markets, in an otherwise empty database."""
    async with side_on(valkey_port, DATABASE) as side:
        yield side


@pytest.fixture
def book(side: Side) -> RedisAlertRules:
    """Its rules; their ids are short and in order."""
    ids = iter(range(1_000))
    return RedisAlertRules(side.database, KEYS, lambda _now: f"r{next(ids):03}")


def above(threshold: str = "2", market: MarketId | None = None, **more: object) -> AlertCondition:
    """A price."""
    return AlertCondition.parse({"kind": "price_above", "threshold": threshold, "market": market, **more})


async def test_a_rule_is_as_it_was_made(side: Side, book: RedisAlertRules) -> None:
    """It counts from the head on, is found by its id, and is gone once it is removed."""
    made = await book.create(above("2.50", token(0), repeat=True, hysteresis="5", note="to the moon"), 77)
    assert made == AlertRule("r000", made.condition, side.writer.state.head.number, 77)
    assert rule_item(made) == {
        "id": "r000",
        "kind": "price_above",
        "market": token(0),
        "threshold": "2.5",
        "repeat": True,
        "hysteresis": "5",
        "since": 2,
        "createdAt": 77,
        "note": "to the moon",
    }
    assert decode_rule(encode_rule(made)) == await book.get("r000") == made
    assert await book.delete("r000")
    assert not await book.delete("r000")
    assert await book.get("r000") is None
    assert (await book.page()).rules == []


async def test_rules_are_listed_in_pages(book: RedisAlertRules) -> None:
    """In the order in which they were made: all of them, or one market's own."""
    for number in range(7):
        await book.create(above(market=token(number % 2)), number)
    await book.create(above(), 9)
    first = await book.page(limit=5)
    assert ([rule.id for rule in first.rules], first.total) == (["r000", "r001", "r002", "r003", "r004"], 8)
    rest = await book.page(after=first.after or "", limit=5)
    assert ([rule.id for rule in rest.rules], rest.after) == (["r005", "r006", "r007"], None)
    own = await book.page(market=token(1))
    assert ([rule.id for rule in own.rules], own.total) == (["r001", "r003", "r005"], 3)


async def test_there_are_not_more_rules_than_there_may_be(
    book: RedisAlertRules, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in all nor for all markets; room that is made can be used."""
    monkeypatch.setattr(alert_rules, "MOST_RULES", 3)
    monkeypatch.setattr(alert_rules, "MOST_FOR_ALL", 1)
    await book.create(above(), 1)
    with pytest.raises(TooManyRules):
        await book.create(above(), 1)
    await book.create(above(market=token(0)), 1)
    await book.create(above(market=token(0)), 1)
    with pytest.raises(TooManyRules):
        await book.create(above(market=token(0)), 1)
    await book.delete("r000")
    await book.create(above(), 1)


async def test_a_rule_needs_a_market_and_a_stream(side: Side, book: RedisAlertRules) -> None:
    """Only a creation can be waited for before there is the market."""
    with pytest.raises(UnknownMarket):
        await book.create(above(market=token(7)), 1)
    await book.create(AlertCondition.parse({"kind": "market_created", "market": token(7)}), 1)
    await side.admin.flushdb()
    with pytest.raises(StoreUnavailable, match="no stream yet"):
        await book.create(above(), 1)


def test_ids_are_new_and_in_order() -> None:
    """Later ones sort behind, whatever else is in them."""
    ids = [new_id(now) for now in (1, MONDAY_MS, MONDAY_MS, MONDAY_MS + 1)]
    assert len(set(ids)) == 4
    assert ids[0] < min(ids[1:3]) <= max(ids[1:3]) < ids[3]
    assert all(AlertRule(made, above(), 0, 0) for made in ids)


async def test_changes_are_followed(book: RedisAlertRules, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who knows a version learns what was made and removed since; too far behind, all there is."""
    nothing = await book.rule_changes(None)
    assert nothing == (0, {}, True)
    kept, gone = await book.create(above(), 1), await book.create(above(market=token(0)), 1)
    assert await book.rule_changes(0) == (2, {kept.id: kept, gone.id: gone}, False)
    await book.delete(gone.id)
    assert await book.rule_changes(2) == (3, {gone.id: None}, False)
    assert await book.rule_changes(3) == (3, {}, False)
    assert await book.rule_changes(9) == (3, {kept.id: kept}, True)
    monkeypatch.setattr(alert_rules, "LOG_KEPT", 1)
    assert await book.rule_changes(1) == (3, {kept.id: kept}, True)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"kind": "price"},
        {"kind": "price_above"},
        {"kind": "price_above", "threshold": 2},
        {"kind": "price_above", "threshold": "0"},
        {"kind": "price_above", "threshold": "1e5"},
        {"kind": "price_above", "threshold": "NaN"},
        {"kind": "price_above", "threshold": "1" * 41},
        {"kind": "price_above", "threshold": "1", "windowMs": MINUTE_MS},
        {"kind": "price_above", "threshold": "1", "hysteresis": "5"},
        {"kind": "price_above", "threshold": "1", "repeat": True, "hysteresis": "100"},
        {"kind": "price_above", "threshold": "1", "repeat": True, "hysteresis": "-1"},
        {"kind": "price_above", "threshold": "1", "repeat": 1},
        {"kind": "price_above", "threshold": "1", "market": ""},
        {"kind": "price_above", "threshold": "1", "note": "x" * 201},
        {"kind": "price_above", "threshold": "1", "since": 5},
        {"kind": "change", "threshold": "5"},
        {"kind": "change", "threshold": "0", "windowMs": MINUTE_MS},
        {"kind": "change", "threshold": "-100", "windowMs": MINUTE_MS},
        {"kind": "change", "threshold": "5", "windowMs": MINUTE_MS + 1},
        {"kind": "change", "threshold": "5", "windowMs": True},
        {"kind": "change", "threshold": "5", "windowMs": 86_460_000},
        {"kind": "volume_spike", "threshold": "5", "windowMs": 43_260_000},
        {"kind": "trade_size", "threshold": "5", "repeat": True, "hysteresis": "5"},
        {"kind": "market_created", "threshold": "5"},
        {"kind": "graduated", "windowMs": MINUTE_MS},
    ],
)
def test_what_can_never_come_true_is_refused(fields: dict[str, object]) -> None:
    """With the name of the field."""
    with pytest.raises(InvalidRule, match=r"^(unknown field|[a-zA-Z]+):"):
        AlertCondition.parse(fields)


class Stage:
    """A stream with rules, followed by a writer that may be replaced, and what the chain says of it."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.rules = RedisAlertRules(side.database, KEYS)
        self.chain = side.writer.chain
        self.timeline = Timeline(self.chain)
        self.ledger = Ledger(self.timeline, BY, 0)
        self.writer = side.writer

    async def begin(self) -> None:
        """Rules from the first block on."""
        await self.side.admin.flushdb()
        for rule in map(rule_of, RULES):
            await self.side.admin.hset(KEYS.alerts, rule.id, encode_rule(rule))
        await self.side.admin.set(KEYS.alert_version, len(RULES))
        await self.restart()
        await self.follow()

    async def restart(self) -> None:
        """Another process takes over."""
        store = RedisStore(self.side.database, KEYS, BY, OUTBOX)
        self.writer = Writer(self.chain, store, BY, alerts=self.rules)
        head = await self.side.admin.hget(KEYS.head, "gen")
        await self.writer.start(now=int(head or 1) + 1)

    async def follow(self) -> None:
        """Commit what is new, and look."""
        self.timeline.note(0)
        await self.writer.follow()
        await self.look()

    async def told(self) -> dict[tuple[str, str], Alert]:
        """Alerts that were told and not taken back."""
        told: dict[tuple[str, str], Alert] = {}
        for row in await self.side.outbox.read(RowId(0, 0), 100_000):
            if row.event == "alert":
                item = orjson.loads(row.data)
                key = item["id"], item["bh"]
                assert (key in told) == item.pop("retracted", False)
                if told.pop(key, None) is None:
                    told[key] = item
        return told

    async def look(self) -> None:
        """What was told, and how the rules stand, is what the chain says."""
        truth = self.ledger.alerts_at(self.writer.state.head.hash, RULES)
        assert await self.told() == truth.told
        states = await self.rules.alert_states()
        assert {tuple(key): block for key, block in states.items()} == truth.states


@pytest.fixture
async def stage(side: Side) -> Stage:
    """A stream with rules."""
    made = Stage(side)
    await made.begin()
    return made


def trade(stage: Stage) -> None:
    """Blocks in which much comes true, among them a creation and a graduation."""
    chain = stage.chain
    chain.mine(swap(0, 1, 10**6), swap(1, 1, 2), after_ms=2 * MINUTE_MS)
    chain.mine(swap(0, ETHER, ETHER), swap(1, 10**9, 1), after_ms=MINUTE_MS)
    chain.mine(created(2), swap(2, 1, 9 * ETHER), swap(0, ETHER, 1), after_ms=MINUTE_MS)
    chain.mine(graduate(1), swap(0, ETHER, 50 * ETHER), swap(2, ETHER, 1), after_ms=30_000)
    chain.mine(swap(0, ETHER, 100 * ETHER), swap(0, ETHER, 1), swap(2, 1, ETHER), after_ms=30_000)


async def test_every_commit_has_its_alerts(stage: Stage) -> None:
    """Rows and states come with the block, are taken back with it, and survive the process."""
    trade(stage)
    await stage.follow()
    kinds = {item["kind"] for item in (await stage.told()).values()}
    assert len(kinds) == 7
    await stage.restart()
    await stage.look()
    tip = stage.chain.tip.number
    stage.chain.fork(4)
    await stage.writer.roll_back(tip - 4)
    await stage.look()
    await stage.restart()
    trade(stage)
    await stage.follow()


async def test_states_of_removed_rules_go(stage: Stage) -> None:
    """Once the writer learns of it, and at its start; a reorg does not bring them back, but retracts."""
    trade(stage)
    await stage.follow()
    states = await stage.rules.alert_states()
    removed = {key for key in states if key.rule in {"low", "high"}}
    assert len(removed) > 2
    for rule in ("low", "high"):
        assert await stage.rules.delete(rule)
    stage.writer.clock.pass_ms(1_000)
    await stage.writer.book.refresh()
    assert await stage.rules.alert_states() == {k: b for k, b in states.items() if k not in removed}
    assert {"low", "high"} & {item["rule"] for item in (await stage.told()).values()}
    ancestor = stage.chain.tip.number - 4
    await stage.writer.roll_back(ancestor)
    assert not {key.rule for key in await stage.rules.alert_states()} & {"low", "high"}
    assert not any(item["b"] > ancestor for item in (await stage.told()).values())
    await stage.side.admin.hset(KEYS.alert_states, f"low:{token(1)}", 3)
    await stage.restart()
    assert StateKey("low", token(1)) not in await stage.rules.alert_states()


async def test_rules_and_states_outlive_a_switch_of_generations(stage: Stage) -> None:
    """Nothing is told again for blocks that were loaded anew, and their alerts can still be taken back."""
    trade(stage)
    await stage.follow()
    beside = KEYS.beside("resync")
    writer = Writer(stage.chain, RedisStore(stage.side.database, beside, BY, OUTBOX), BY, live=False)
    await writer.start(now=5)
    await writer.follow()
    generations = RedisGenerations(stage.side.database, KEYS, beside, BY)
    assert await generations.watched()
    await generations.switch(0, in_step=True)
    await stage.restart()
    await stage.look()
    tip = stage.chain.tip.number
    stage.chain.fork(3)
    await stage.writer.roll_back(tip - 3)
    await stage.look()


async def test_a_reset_takes_rules_with_it(stage: Stage) -> None:
    """The stream is as if it had never been."""
    trade(stage)
    await stage.follow()
    await reset_stream(stage.side.database, KEYS)
    assert [key async for key in stage.side.admin.scan_iter()] == []
    assert await stage.rules.rule_changes(None) == (0, {}, True)
    assert await stage.side.outbox.read(ORIGIN, 10) == []

"""The alert book in a follower: rules that come and go, history in bulk, trails that are forgotten."""

from collections.abc import Sequence
from random import Random

import pytest

from listener.application.changes import ChangeSet
from listener.application.rules import Finality
from listener.application.services import alert_book
from listener.application.services.fetching import FetchLimits
from listener.application.services.follower import Follower, FollowerLimits
from listener.domain.value_objects import MINUTE_MS
from tests.alert_oracle import Rule
from tests.fakes.build import CHAIN_ID, ETHER, MONDAY_MS, created, rules, swap, token
from tests.fakes.chain import FakeChain, LocalChain
from tests.fakes.clock import Done, FakeClock, FakeHints, FakeSignal, Step
from tests.fakes.observer import RecordingObserver
from tests.fakes.store import FakeStore
from tests.simulation.alerts import RULES, rule_of
from tests.simulation.ledger import Ledger
from tests.simulation.timeline import Timeline

BY = rules("5m", "1d", finality=Finality(6))


class World:
    """A chain, a store, and a follower with an alert book."""

    def __init__(self, book: Sequence[Rule] = RULES) -> None:
        self.book = book
        self.chain = LocalChain()
        self.clock = FakeClock(MONDAY_MS)
        self.store = FakeStore(BY)
        self.store.put_rules(map(rule_of, book))
        self.observer = RecordingObserver()
        self.hints = FakeHints()
        self.follower = Follower(
            chain=FakeChain(self.chain),
            hints=self.hints,
            store=self.store,
            clock=self.clock,
            observer=self.observer,
            signal=FakeSignal(),
            audit_wanted=FakeSignal(),
            rules=BY,
            limits=FollowerLimits(poll_s=1, fetch=FetchLimits(5), commit_trades=10, cached_markets=2),
            chain_id=CHAIN_ID,
            start=1,
            fingerprint={},
            tell_backend=True,
            alerts=self.store,
        )

    def mine(self, blocks: int, seed: int = 1) -> None:
        """Blocks in which two markets trade up and down, the first one now and then."""
        rng = Random(seed)
        if self.chain.tip.number == 0:
            self.chain.mine(created(0), created(1))
        for _ in range(blocks):
            trades = [
                swap(
                    number, rng.randint(1, 100) * ETHER // 10, rng.randint(1, 100) * 10 ** rng.randint(15, 18)
                )
                for number in rng.choice(((0,), (1,), (0, 1, 0), ()))
            ]
            self.chain.mine(*trades, after_ms=rng.choice((12_000, MINUTE_MS, 9 * MINUTE_MS)))

    async def run(self, *steps: Step) -> None:
        """Follow, take these steps while waiting for hints, and stop."""
        self.hints.then(*steps)
        with pytest.raises(Done):
            await self.follower.run()

    def look(self, *gone: str) -> None:
        """What was told is what the chain says, but for rules that are gone."""
        timeline = Timeline(self.chain)
        timeline.note(0)
        book = [rule for rule in self.book if rule["id"] not in gone]
        truth = Ledger(timeline, BY, 0).alerts_at(self.chain.tip.hash, book)
        told = {key: alert for key, alert in self.store.told_alerts.items() if alert["rule"] not in gone}
        assert told == truth.told
        assert {tuple(key): block for key, block in self.store.states.items()} == truth.states


def in_bulk(changes: ChangeSet) -> bool:
    """Whether a commit has candles that were folded in bulk."""
    return changes.more_candles is not None


async def test_history_has_the_alerts_of_its_blocks() -> None:
    """Blocks that were missed are held against the rules too, run by run."""
    world = World()
    world.mine(120)
    await world.run()
    world.look()
    kinds = {alert["kind"] for alert in world.store.told_alerts.values()}
    assert kinds >= {"price_below", "change", "volume_spike", "trade_size"}
    runs = [changes for changes in world.observer.commits if not changes.live]
    assert len(runs) > 5
    assert not any(map(in_bulk, runs)), "rules for all markets count from the first block on"


async def test_history_before_a_rule_stays_in_bulk() -> None:
    """Nothing is folded one by one before the first block that counts; then what the rule looks at is."""
    book = [
        {"id": "one", "kind": "change", "threshold": "50", "windowMs": 30 * MINUTE_MS, "since": 60}
        | {"market": token(0), "repeat": True},
        {"id": "all", "kind": "trade_size", "threshold": "3", "since": 90, "repeat": True},
    ]
    world = World(book)
    world.mine(120)
    await world.run()
    world.look()
    assert len(world.store.told_alerts) > 5
    runs = [changes for changes in world.observer.commits if not changes.live and changes.counted]
    kinds = [(changes.head.number, in_bulk(changes), bool(changes.candles)) for changes in runs]
    assert all(bulk and not single for number, bulk, single in kinds if number <= 60)
    assert any(bulk and single for number, bulk, single in kinds if 60 < number <= 90)
    assert not any(bulk for number, bulk, single in kinds if number > 90)


async def test_rules_come_and_go_between_blocks() -> None:
    """A new one counts from the block after it is seen, within half a second; a removed one never again."""
    world = World([])
    world.mine(20)
    await world.run()
    low = {"id": "low", "kind": "trade_size", "threshold": "0.000000000000000001", "repeat": True}
    world.book = [low | {"since": world.chain.tip.number}, low | {"id": "gone", "since": 0}]

    def meanwhile() -> None:
        world.store.put_rules(map(rule_of, world.book))
        world.clock.pass_ms(600)
        world.mine(8, seed=2)

    def later() -> None:
        world.store.remove_rule("gone")
        world.clock.pass_ms(600)
        world.mine(8, seed=3)

    await world.run(meanwhile, later)
    world.look("gone")
    blocks = [int(alert["b"]) for alert in world.store.told_alerts.values() if alert["rule"] == "gone"]
    assert blocks
    assert all(21 < block <= 29 for block in blocks)


async def test_trails_that_are_forgotten_are_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for one market only, and after a restart, what is measured is the same."""
    monkeypatch.setattr(alert_book, "MOST_MINUTES", 3)
    world = World()
    world.mine(40)
    await world.run()
    world.mine(20, seed=2)
    await world.run()
    world.follower.forget()
    world.mine(20, seed=3)
    await world.run()
    world.look()
    assert world.follower._alerts._kept <= 3


async def test_states_without_a_rule_are_swept() -> None:
    """What a commit brought back for a rule that was gone does not stay for ever."""
    world = World()
    world.mine(30)
    await world.run()
    assert any(key.rule == "down" for key in world.store.states)
    del world.store.alert_rules["down"]
    world.follower.forget()
    await world.run()
    assert world.store.states
    assert not any(key.rule == "down" for key in world.store.states)

"""RaiseAlerts: whatever rules and trades there are, the alerts are those one would find one by one."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from listener.domain.alerts import AlertKind
from listener.domain.value_objects import DAY_MS, MINUTE_MS
from tests.alert_oracle import Rule
from tests.fakes.build import ETHER, created, graduate, rules, swap, token
from tests.fakes.chain import LocalChain
from tests.fakes.store import FakeStore
from tests.fakes.writer import Writer, finish
from tests.simulation.alerts import rule_of
from tests.simulation.ledger import Ledger
from tests.simulation.timeline import Timeline

BY = rules("5m", "1d")
HOUR_MS = 60 * MINUTE_MS
GAPS_MS = (1_000, 59_000, MINUTE_MS, 7 * MINUTE_MS, HOUR_MS, 9 * HOUR_MS, DAY_MS)
PRICES = (1, 2, 3, 4, 6, 8, 12, 100)
SIZES = (1, 2, 5, 20)


@st.composite
def public_rules(draw: st.DrawFn, number: int) -> Rule:
    """A rule that small markets make come true now and then."""
    kind = draw(
        st.sampled_from(
            (
                *("price_above", "price_below", "change", "change", "volume_spike", "trade_size"),
                *("market_created", "graduated"),
            )
        )
    )
    rule: dict[str, Any] = {"id": f"r{number}", "kind": kind, "createdAt": 1}
    rule["since"] = draw(st.sampled_from((0, 0, 1, 3)))
    market = draw(st.sampled_from((None, token(0), token(1))))
    if market:
        rule["market"] = market
    if kind in {"market_created", "graduated"}:
        return rule
    thresholds: tuple[object, ...] = PRICES
    if kind == "change":
        thresholds = ("50", "100", "0.5", "-25", "-50", "-99")
        rule["windowMs"] = draw(st.sampled_from((MINUTE_MS, 10 * MINUTE_MS, 12 * HOUR_MS, DAY_MS)))
    elif kind == "volume_spike":
        thresholds = ("0.5", "1", "2", "10")
        rule["windowMs"] = draw(st.sampled_from((MINUTE_MS, 30 * MINUTE_MS, 6 * HOUR_MS, 12 * HOUR_MS)))
    elif kind == "trade_size":
        thresholds = SIZES
    rule["threshold"] = str(draw(st.sampled_from(thresholds)))
    if draw(st.booleans()):
        rule["repeat"] = True
        if kind != "trade_size":
            rule["hysteresis"] = draw(st.sampled_from(("0", "0", "20", "50.5")))
    return rule


@st.composite
def rule_books(draw: st.DrawFn) -> list[Rule]:
    """Some rules."""
    return [draw(public_rules(number)) for number in range(draw(st.integers(1, 8)))]


def mine(chain: LocalChain, draw: st.DrawFn) -> None:
    """A block with some trades, perhaps of a new market, perhaps with a graduation."""
    makers = []
    known = sum(len(block.facts) > 0 for block in chain.blocks)
    if known == 0:
        makers += [created(0), created(1)]
    for _ in range(draw(st.integers(0, 4))):
        size = draw(st.sampled_from(SIZES)) * ETHER
        price = draw(st.sampled_from(PRICES))
        number = draw(st.sampled_from((0, 0, 1)))
        base = size // price if number == 0 else size // price // 10**12
        makers.append(swap(number, base, size, buy=draw(st.booleans())))
    if draw(st.integers(0, 9)) == 0:
        makers.append(graduate(draw(st.integers(0, 1))))
    chain.mine(*makers, after_ms=draw(st.sampled_from(GAPS_MS)))


class Played:
    """A chain with rules, followed in one of many ways."""

    def __init__(self, book: Sequence[Rule]) -> None:
        self.book = book
        self.chain = LocalChain()
        self.timeline = Timeline(self.chain)
        self.store = FakeStore(BY)
        self.store.put_rules(rule_of(rule) for rule in book)
        self.ledger = Ledger(self.timeline, BY, 0)
        self.writer = Writer(self.chain, self.store, BY, alerts=self.store)
        self.timeline.note(0)
        finish(self.writer.start())

    def play(self, draw: st.DrawFn, steps: int) -> None:
        """Mine, fork, load history, restart, and look after each step."""
        writer, chain = self.writer, self.chain
        for _ in range(steps):
            kind = draw(st.sampled_from(("mine", "mine", "mine", "fork", "history", "restart")))
            if kind == "fork" and len(writer.state.window) > 2:
                depth = draw(st.integers(1, min(4, len(writer.state.window) - 1)))
                chain.fork(depth)
                finish(writer.roll_back(chain.tip.number))
            elif kind == "restart":
                finish(writer.start(now=writer.state.head.gen + 1))
            else:
                for _ in range(draw(st.integers(1, 4)) if kind == "history" else 1):
                    mine(chain, draw)
                    self.timeline.note(0)
                new = chain.blocks[writer.state.head.number + 1 :]
                finish(writer.load_history(new) if kind == "history" else writer.apply(new))
            self.look()

    def look(self) -> None:
        """What was told, and how the rules stand, is what the chain says."""
        truth = self.ledger.alerts_at(self.writer.state.head.hash, self.book)
        assert self.store.told_alerts == truth.told
        assert {tuple(key): block for key, block in self.store.states.items()} == truth.states
        assert self.writer.book._index.states == self.store.states


def test_alerts_are_those_one_would_find() -> None:
    """Each alert is told once, and taken back if orphaned, whatever way the chain is followed.

    Through blocks, runs of history, reorgs and restarts. Alerts of every kind come true on the way: else this
    would hold of something that never raises any.
    """
    seen: Counter[str] = Counter()

    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(rule_books(), st.data())
    def play(book: list[Rule], data: st.DataObject) -> None:
        played = Played(book)
        played.play(data.draw, data.draw(st.integers(3, 14)))
        for row in played.store.rows:
            if row.event == "alert":
                item = orjson.loads(row.data)
                seen["retracted" if "retracted" in item else item["kind"]] += 1

    play()
    assert all(seen[kind] >= 10 for kind in (*AlertKind, "retracted")), seen

"""A change set as the parts of its commit: few commands, whatever the batch, and none that does nothing."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from listener.application.changes import BlockUndo, CandleChange, ChangeSet, MarketState
from listener.application.rules import Finality
from listener.domain.entities import Candle, Market, MarketStats, Trade
from listener.domain.value_objects import DAY_MS, MINUTE_MS, ONE_MINUTE, MarketId
from listener.infrastructure.redis import codec
from listener.infrastructure.redis.client import Command
from listener.infrastructure.redis.codec import FIGURES, CandleTexts, encode_candle, stats_fields
from listener.infrastructure.redis.commands import WORDS, Writes, commands, encode_told, rows
from listener.infrastructure.redis.keys import Keys
from tests.fakes.build import CHAIN_ID, MONDAY_MS, block, created, head, market, rules, swap, token, trade
from tests.fakes.chain import LocalChain
from tests.fakes.store import FakeStore
from tests.fakes.writer import Writer

KEYS = Keys(CHAIN_ID)
BY = rules("5m", finality=Finality(4), trades_kept=3)
MINUTES = KEYS.candles(token(0), "1m")
SCRIPT_WORDS = 7_900
"""A script can pass on so many at once."""


def changed(**changes: Any) -> ChangeSet:
    """A change set that changes a market of its own."""
    ref = block(7)
    state = MarketState.new(market(), len(BY.intervals))
    if trades := changes.get("trades"):
        changes["newest"] = {token(0): trades}
    usual = ChangeSet(base=head(block(6)), head=head(ref), live=False, states={token(0): state})
    return replace(usual, **changes)


def written(changes: ChangeSet) -> Writes:
    """What its commit writes."""
    return commands(changes, KEYS, CandleTexts(), encode_told(changes))


def minute(number: int) -> Candle:
    """A candle of one trade in minute `number`."""
    return Candle.of([trade(price=str(number + 1))], MONDAY_MS + number * MINUTE_MS)


def change(number: int, *, replaces: bool = False) -> CandleChange:
    """A minute that is new, or takes another's place."""
    after = minute(number)
    return CandleChange(token(0), ONE_MINUTE, after.open_time, after, after if replaces else None)


def of(commands: Sequence[Command], *names: str) -> list[Command]:
    """Commands of these names."""
    return [command for command in commands if command[0] in names]


def test_candles_say_whether_they_take_anothers_place() -> None:
    """What is stored under their open time goes first then."""
    changes = changed(candles=[change(0, replaces=True), change(1), change(2)])
    found = written(changes)
    texts = [encode_candle(one.after, market()) for one in changes.candles if one.after]
    assert found.series == [
        (MINUTES, replaces, 2, one.open_time, text)
        for replaces, one, text in zip((1, 0, 0), changes.candles, texts, strict=True)
    ]


def test_a_series_is_cut_once_and_only_where_something_may_go() -> None:
    """However many candles are new; a market that is younger than the retention has nothing to lose."""
    later = MONDAY_MS + DAY_MS
    five = BY.intervals[1]
    trims = [(token(0), ONE_MINUTE, later)] * 5 + [(token(0), five, MONDAY_MS)] * 5
    found = written(changed(trims=trims))
    assert of(found.commands, "ZREMRANGEBYSCORE") == [("ZREMRANGEBYSCORE", MINUTES, "-inf", f"({later}")]


def test_what_comes_before_the_first_candle_is_not_cut() -> None:
    """A market's first candle opens with the minute of its creation, and may go a millisecond later."""
    opened = MONDAY_MS + 90_000
    state = MarketState.new(market(created_at=opened), len(BY.intervals))
    first = ONE_MINUTE.open_time(opened)
    for oldest, cut in ((first, False), (first + 1, True)):
        found = written(changed(states={token(0): state}, trims=[(token(0), ONE_MINUTE, oldest)]))
        assert bool(of(found.commands, "ZREMRANGEBYSCORE")) is cut


def test_trades_that_would_be_cut_off_are_not_sent() -> None:
    """Of a long run only the newest are pushed, oldest first, and the list is bounded."""
    trades = [trade(1, index) for index in range(5)]
    found = written(changed(trades=trades, trades_kept={token(0): 3}))
    ((key, kept, count, *items),) = found.lists
    assert (key, kept, count) == (KEYS.trades(token(0)), 3, 3)
    assert [orjson.loads(item)["li"] for item in items if isinstance(item, bytes)] == [2, 3, 4]


def test_a_trade_is_encoded_once() -> None:
    """Its row and its place in the list are the same bytes."""
    changes = changed(live=True, trades=[trade()], trades_kept={token(0): 3})
    told = encode_told(changes)
    ((event, data),) = rows(changes, BY, told)
    ((_, _, _, item),) = commands(changes, KEYS, CandleTexts(), told).lists
    assert (event, data) == ("trade_update", item)
    assert data is item
    assert encode_told(replace(changes, live=False)) == {}


def test_figures_have_their_names() -> None:
    """Values are sent without names: they must come in the order in which the names are given."""
    stats = MarketStats(MONDAY_MS, minute(0).close, minute(0))
    found = written(changed(stats={token(0): stats}))
    fields = stats_fields(stats, market())
    assert tuple(fields) == FIGURES
    assert found.figures == [(KEYS.stats(token(0)), *fields.values())]
    empty = written(changed(stats={token(0): stats._replace(window=None)}))
    assert empty.figures == []
    assert [command[0] for command in empty.commands[:2]] == ["HDEL", "HSET"]


def test_markets_are_registered_together() -> None:
    """One command a key, whatever the number of markets."""
    many = {token(number): market(number) for number in range(9)}
    due: dict[MarketId, int | None] = dict.fromkeys(list(many)[:5], MONDAY_MS)
    due |= dict.fromkeys(list(many)[5:])
    gone = {token(number): market(number) for number in range(20, 29)}
    found = Counter(
        (command[0], command[1]) for command in written(changed(created=many, due=due, removed=gone)).commands
    )
    together = [("ZADD", KEYS.markets), ("HSET", KEYS.sources), ("ZADD", KEYS.due), ("ZREM", KEYS.due)]
    together += [("ZREM", KEYS.markets), ("HDEL", KEYS.sources)]
    assert [found[command] for command in together] == [1] * len(together)


def test_no_command_has_more_words_than_a_script_can_pass_on() -> None:
    """Thousands of trades, candles, markets and before-images: several commands, none too long."""
    many: list[Trade] = [trade(1, index) for index in range(5_000)]
    found = written(
        changed(
            trades=many,
            trades_kept={token(0): 5_000},
            candles=[change(number) for number in range(5_000)],
            due={token(number): MONDAY_MS for number in range(5_000)},
            undo_dropped=list(range(5_000)),
            undo=BlockUndo(block(7), 0, ()),
        )
    )
    parts = (found.lists, found.series, found.commands)
    assert max(len(entry) for part in parts for entry in part) <= SCRIPT_WORDS
    assert [count for _, _, count, *_ in found.lists] == [WORDS, WORDS, 1_000]
    assert sum(len(words) for _, _, _, *words in found.series) == 10_000


async def test_a_before_image_is_what_the_last_commit_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    """The candle that a block replaces is not encoded again: its text of the block before is taken."""
    encoded: list[Candle] = []

    def encode(candle: Candle, record: Market) -> bytes:
        encoded.append(candle)
        return encode_candle(candle, record)

    monkeypatch.setattr(codec, "encode_candle", encode)
    writer = Writer(LocalChain(), FakeStore(BY), BY)
    await writer.start()
    texts = CandleTexts()
    commits: list[Writes] = []
    for makers in ((created(0), swap(0)), (swap(0),)):
        writer.chain.mine(*makers, after_ms=1_000)
        changes = await writer.changes(writer.chain.blocks[-1:])
        commits.append(commands(changes, KEYS, texts))
        await writer.commit(changes)
    (text,) = (text for key, _, _, _, text in commits[0].series if key == MINUTES)
    first, second = (
        command[3] for commit in commits for command in commit.commands if command[1] == KEYS.undo
    )
    assert isinstance(text, bytes)
    assert isinstance(first, bytes)
    assert isinstance(second, bytes)
    assert text not in first
    assert text in second
    assert len(encoded) == 2 * len(BY.intervals)

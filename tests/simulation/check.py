"""What must hold after every change of the store, and what must come true in the end."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from listener.application.changes import Head
from listener.application.interfaces import Row, RowId
from listener.domain.entities import MarketStats
from listener.domain.value_objects import BlockRef
from tests.fakes.brute import figures_in
from tests.simulation.alerts import RULES
from tests.simulation.backend import View
from tests.simulation.ledger import Truth, kept_from
from tests.simulation.loop import SimFailure

if TYPE_CHECKING:
    from tests.simulation.world import World


class Check:
    """Holds the store against the ledger, and the backend against the store.

    Attributes:
        commits: changes of the head so far.
        missed: the audit has said that it could not look at some blocks.
    """

    def __init__(self, world: "World") -> None:
        self._world = world
        self._head: Head | None = None
        self._row = (0, 0)
        self._epoch = 0
        self.commits = 0
        self.missed = False
        self._ever: dict[RowId, Row] = {}

    def after_command(self) -> None:
        """A command was applied; cheap if it changed nothing."""
        head = self._world.store.market.committed
        if head is self._head or head is None:
            return
        previous, self._head = self._head, head
        self.commits += 1
        self._fence(previous, head)
        self._rows()
        problem = next(self.differences(), None) if self._world.plan.whole else None
        if problem:
            raise SimFailure(f"after block {head.number}: {problem}")

    def after_lost_tail(self) -> None:
        """The store is what it once was."""
        market = self._world.store.market
        self._head = market.committed
        self._row = market.rows[-1].id if market.rows else (0, 0)

    def _fence(self, previous: Head | None, head: Head) -> None:
        if previous is None or head.epoch != previous.epoch:
            if head.epoch <= self._epoch:
                raise SimFailure(f"epoch {head.epoch} comes after {self._epoch}")
            self._epoch = head.epoch
        elif head.gen < previous.gen:
            raise SimFailure(f"generation {head.gen} comes after {previous.gen}")
        if head.as_of < head.timestamp:
            raise SimFailure(f"figures as of {head.as_of}, before the head's time {head.timestamp}")

    def _rows(self) -> None:
        """New rows are numbered without gaps, and no number is ever given to another row."""
        rows = self._world.store.market.rows
        new = []
        for row in reversed(rows):
            if row.id <= self._row:
                break
            new.append(row)
        for row in reversed(new):
            number, (epoch, seq) = row.id, self._row
            if self._ever.setdefault(number, row) != row:
                raise SimFailure(f"row {number} was {self._ever[number]} and is {row}")
            if number not in {(epoch, seq + 1), (max(number.epoch, epoch + 1), 1)}:
                raise SimFailure(f"row {number} follows row {self._row}")
            self._row = number

    def lasting_differences(self) -> Iterator[str]:
        """What must not be in the end: no differences, unless nodes left out logs and we were told so."""
        if self._world.plan.whole or not self.missed:
            yield from self.differences()

    def differences(self) -> Iterator[str]:
        """Where the store is not what the chain up to its head says."""
        market, world = self._world.store.market, self._world
        head = market.committed
        if head is None:
            return
        born_s, _ = world.timeline.born.get(head.hash, (world.loop.time() + 1, None))
        if born_s > world.loop.time():
            yield f"no node ever showed {head.hash}"
            return
        truth = world.ledger.at(head.hash)
        if (head.number, head.timestamp) != (truth.block.number, truth.block.timestamp):
            yield f"the head is {head}, its block {truth.block}"
        if market.markets != truth.records:
            yield f"records {market.markets} instead of {truth.records}"
        if market.sources != truth.sources:
            yield f"emitters {market.sources} instead of {truth.sources}"
        yield from self._trades(truth)
        yield from self._candles(truth)
        yield from self._figures(truth, head)
        yield from self._window(head)
        yield from self._alerts(head)

    def _trades(self, truth: Truth) -> Iterator[str]:
        stored, kept = self._world.store.market.trades, self._world.plan.rules.trades_kept
        for market in stored.keys() | truth.trades.keys():
            have, want = stored.get(market, []), list(truth.trades.get(market, ())[::-1])
            if len(have) < min(kept, len(want)) or have != want[: len(have)]:
                ids = [[str(trade.id) for trade in trades] for trades in (have, want)]
                yield f"trades of {market}: {ids[0]} instead of {ids[1]}"

    def _candles(self, truth: Truth) -> Iterator[str]:
        stored, rules = self._world.store.market.series, self._world.plan.rules
        oldest = kept_from(rules, truth.block)
        for key in stored.keys() | truth.series.keys():
            have, want = stored.get(key, {}), truth.series.get(key, {})
            if have == want:
                continue
            since = oldest.get(key[1], 0)
            for time in sorted(have.keys() | want.keys()):
                if have.get(time) != want.get(time) and (time in have or time >= since):
                    yield f"candle {key} at {time}: {have.get(time)} instead of {want.get(time)}"

    def _figures(self, truth: Truth, head: Head) -> Iterator[str]:
        """Figures of markets that wait to be refreshed may be old, and only those."""
        market = self._world.store.market
        expected = truth.stats(head.as_of)
        for name in market.figures.keys() | expected.keys():
            if market.dues.get(name, head.as_of + 1) <= head.as_of:
                continue
            have, want = market.figures.get(name), expected.get(name)
            if _public(have) != _public(want):
                yield f"24 h of {name} as of {head.as_of}: {have} instead of {want}"

    def _window(self, head: Head) -> Iterator[str]:
        """Before-images are of the blocks that end with the head."""
        undos = self._world.store.market.undos
        number, block_hash = head.number, head.hash
        while number in undos and undos[number].block.hash == block_hash:
            block_hash = undos[number].block.parent_hash
            number -= 1
        if head.number - number != len(undos) or not undos:
            yield f"before-images of {sorted(undos)} under head {head.number}"

    def _alerts(self, head: Head) -> Iterator[str]:
        """Alerts told and not taken back are those of the chain up to the head; rules stand accordingly."""
        market, truth = self._world.store.market, self._world.ledger.alerts_at(head.hash, RULES)
        have, want = market.told_alerts, truth.told
        if have != want:
            more, less = sorted(have.keys() - want.keys()), sorted(want.keys() - have.keys())
            yield f"alerts {more} too much, {less} missing, or others"
        states = {tuple(key): block for key, block in market.states.items()}
        if states != truth.states:
            yield f"rules stand {states} instead of {truth.states}"

    def unrest(self) -> Iterator[str]:
        """What is not yet as it must be once nothing happens any more."""
        world = self._world
        market, tip = world.store.market, world.timeline.final[-1].block
        head = market.committed
        if head is None or head.hash != tip.hash:
            yield f"the head is {head}, the tip {tip}"
            return
        yield from self.lasting_differences()
        if not world.plan.backend:
            return
        cursor = world.store.outbox.saved[-1] if world.store.outbox.saved else None
        if market.rows and (cursor is None or cursor.acknowledged != market.rows[-1].id):
            yield f"the cursor is {cursor}, the last row {market.rows[-1].id}"
        if market.owed:
            yield "a resync is owed"
        waiting = [name for name, due in market.dues.items() if due <= head.as_of]
        if waiting:
            yield f"not refreshed: {waiting}"
        yield from self._views(tip)

    def _views(self, tip: BlockRef) -> Iterator[str]:
        """What the backend knows is what the store holds."""
        world = self._world
        have, want = world.consumer.view, View.of(world.store.market, world.intervals_ms)
        if have.records != want.records:
            yield f"the backend has records {have.records}, the store {want.records}"
        if have.stats != want.stats:
            yield f"the backend has figures {have.stats}, the store {want.stats}"
        if not (world.consumer.missed_alerts or world.store.lost_tail):
            told, stored = world.consumer.alerts, world.store.market.told_alerts
            if told != stored:
                yield f"the backend has alerts {sorted(told)}, the store {sorted(stored)}"
        kept = world.plan.rules.trades_kept
        for market in have.trades.keys() | want.trades.keys():
            theirs, ours = have.newest(market, kept), want.newest(market, kept)
            if theirs != ours:
                yield f"the backend has trades {theirs}, the store {ours}"
        oldest = kept_from(world.plan.rules, tip)
        for key in have.candles.keys() | want.candles.keys():
            gone = key not in want.candles and key[2] < oldest.get(key[1], 0)
            if have.candles.get(key) != want.candles.get(key) and not gone:
                yield f"the backend has candle {have.candles.get(key)}, the store {want.candles.get(key)}"


def _public(stats: MarketStats | None) -> tuple[object, ...] | None:
    return stats and (stats.changed_minute, stats.last_price, figures_in(stats.window))

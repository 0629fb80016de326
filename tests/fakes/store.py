"""`MarketStore` and `Outbox` in plain dictionaries, and one whose commits fail as a test says."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import orjson

from listener.application.changes import BlockUndo, ChangeSet, Head, MarketState
from listener.application.errors import ForeignData, NewerSchema, StoreUnavailable, Superseded
from listener.application.interfaces import (
    ChainIdentity,
    Cursor,
    MarketStore,
    Row,
    RowId,
    RuleChanges,
    StoredStream,
)
from listener.application.rules import Rules
from listener.application.state import StreamState, Written
from listener.domain.alerts import AlertRule, StateKey
from listener.domain.entities import Candle, Market, MarketStats, Trade
from listener.domain.rolling import RollingDay
from listener.domain.value_objects import (
    DAY_MS,
    MINUTE_MS,
    BlockRef,
    Interval,
    MarketId,
    Timestamp,
)
from listener.infrastructure.redis.codec import candle_fields, stats_fields
from listener.infrastructure.redis.commands import rows

SCHEMA = 1


class FakeStore:
    """A stream in memory.

    Attributes:
        series: candles by market and interval name, by open time.
        trades: newest first.
        rows: the outbox.
        told_alerts: alerts that were told and not taken back, by id and block hash.
    """

    def __init__(self, rules: Rules, outbox_rows: int = 1_000_000) -> None:
        self._rules = rules
        self._outbox_rows = outbox_rows
        self.schema = SCHEMA
        self.foreign = False
        self.identity: ChainIdentity | None = None
        self.fingerprint: dict[str, str] = {}
        self.committed: Head | None = None
        self.base = 0
        self.owed = True
        self.undos: dict[int, BlockUndo] = {}
        self.sources: dict[str, MarketId] = {}
        self.closed: dict[str, Timestamp] = {}
        self.dues: dict[MarketId, Timestamp] = {}
        self.markets: dict[MarketId, Market] = {}
        self.figures: dict[MarketId, MarketStats] = {}
        self.series: dict[tuple[MarketId, str], dict[Timestamp, Candle]] = {}
        self.trades: dict[MarketId, list[Trade]] = {}
        self.rows: list[Row] = []
        self.alert_rules: dict[str, AlertRule] = {}
        self.alert_changes: list[str] = []
        self.states: dict[StateKey, int] = {}
        self.told_alerts: dict[tuple[str, str], dict[str, object]] = {}
        self.audited = ""
        self.incarnation = "first"
        self._server = ""

    async def load(self) -> StoredStream | None:
        """See `MarketStore.load`."""
        if self.foreign:
            raise ForeignData("not ours")
        if self.committed is None or self.identity is None:
            return None
        if self.schema > SCHEMA:
            raise NewerSchema(f"schema {self.schema}")
        window = deque(Written.of(undo) for _, undo in sorted(self.undos.items()))
        audited = next((w.block.number for w in window if w.block.hash == self.audited), -1)
        owed = self.owed or self._server != self.incarnation
        state = StreamState(
            self.base, self.committed, window, dict(self.sources), dict(self.closed), owed, audited
        )
        return StoredStream(state, *self.identity, self.schema, dict(self.fingerprint))

    async def initialise(
        self, identity: ChainIdentity, base: BlockRef, fingerprint: Mapping[str, str], now: Timestamp
    ) -> None:
        """See `MarketStore.initialise`."""
        if self.committed is not None:
            return
        self.identity, self.fingerprint, self.base = identity, dict(fingerprint), base.number
        self.committed = Head(base.number, base.hash, base.timestamp, base.timestamp, now, now, 0)
        self.undos = {base.number: BlockUndo(base, 0, ())}

    async def take_over(self, head: Head, floor: int, *, resync_owed: bool) -> Head:
        """See `MarketStore.take_over`."""
        self._expect(head)
        self._server = self.incarnation
        self.owed = self.owed or resync_owed
        self.committed = replace(head, gen=max(head.gen + 1, floor), epoch=max(head.epoch + 1, floor), seq=0)
        return self.committed

    async def head(self) -> Head:
        """See `MarketStore.head`."""
        if self.committed is None:
            raise Superseded("the stream is gone")
        return self.committed

    def _expect(self, base: Head) -> None:
        found = self.committed
        if found is None or (found.hash, found.gen, found.seq, found.as_of) != (
            base.hash,
            base.gen,
            base.seq,
            base.as_of,
        ):
            raise Superseded(f"expected {base}, found {found}")

    async def commit(self, changes: ChangeSet) -> Head:
        """See `MarketStore.commit`."""
        self._expect(changes.base)
        seq = changes.base.seq
        for seq, (event, data) in enumerate(rows(changes, self._rules), start=seq + 1):  # noqa: B020
            self.rows.append(Row(RowId(changes.head.epoch, seq), event, data))
            if event == "alert":
                self._tell_alert(orjson.loads(data))
        del self.rows[: max(len(self.rows) - self._outbox_rows, 0)]
        self._write_trades(changes)
        self._write_candles(changes)
        self._write_markets(changes)
        self._write_states(changes)
        self.closed.update(changes.closed)
        for number in changes.undo_dropped:
            del self.undos[number]
        if changes.undo:
            self.undos[changes.undo.block.number] = changes.undo
        self.owed = not changes.live or (self.owed and not changes.reason)
        self.committed = replace(changes.head, seq=seq)
        return self.committed

    def _write_trades(self, changes: ChangeSet) -> None:
        for market, trades in changes.newest.items():
            self.trades[market] = [*reversed(trades), *self.trades.get(market, [])]
        for market, kept in changes.trades_kept.items():
            del self.trades[market][kept:]
        for market, count in changes.dropped_trades.items():
            del self.trades.get(market, [])[:count]

    def _write_candles(self, changes: ChangeSet) -> None:
        more = changes.more_candles.changes() if changes.more_candles else ()
        for market, interval, open_time, after, _ in (*changes.candles, *more):
            candles = self.series.setdefault((market, interval.name), {})
            candles.pop(open_time, None)
            if after is not None:
                candles[open_time] = after
        for market, interval, oldest in changes.trims:
            candles = self.series.get((market, interval.name), {})
            for open_time in [time for time in candles if time < oldest]:
                del candles[open_time]

    def _write_markets(self, changes: ChangeSet) -> None:
        for market, stats in changes.stats.items():
            if stats is None:
                self.figures.pop(market, None)
            else:
                self.figures[market] = stats
        self.markets.update(changes.records)
        for market in changes.created.values():
            self.sources[market.source] = market.id
        for market in changes.removed.values():
            del self.markets[market.id]
            del self.sources[market.source]
        for market, due in changes.due.items():
            if due is None:
                self.dues.pop(market, None)
            else:
                self.dues[market] = due

    def _write_states(self, changes: ChangeSet) -> None:
        for key, block in changes.alert_states.items():
            if block is None:
                self.states.pop(key, None)
            else:
                self.states[key] = block

    def _tell_alert(self, item: dict[str, object]) -> None:
        """Each once, and taken back only after it was told."""
        key = str(item["id"]), str(item["bh"])
        taken_back = item.pop("retracted", False)
        assert (key in self.told_alerts) == taken_back, f"{key} comes again, or from nowhere"
        if taken_back:
            assert self.told_alerts.pop(key) == item
        else:
            self.told_alerts[key] = item

    def put_rules(self, rules: Iterable[AlertRule]) -> None:
        """Somebody makes rules."""
        for rule in rules:
            self.alert_rules[rule.id] = rule
            self.alert_changes.append(rule.id)

    def remove_rule(self, rule_id: str) -> None:
        """Somebody removes a rule."""
        del self.alert_rules[rule_id]
        self.alert_changes.append(rule_id)

    async def rule_changes(self, after: int | None) -> RuleChanges:
        """See `AlertStore.rule_changes`."""
        version = len(self.alert_changes)
        if after is None or after > version:
            return RuleChanges(version, dict(self.alert_rules), complete=True)
        changed = {name: self.alert_rules.get(name) for name in self.alert_changes[after:]}
        return RuleChanges(version, changed, complete=False)

    async def alert_states(self) -> dict[StateKey, int]:
        """See `AlertStore.alert_states`."""
        return dict(self.states)

    async def forget_alert_states(self, states: Iterable[StateKey]) -> None:
        """See `AlertStore.forget_alert_states`."""
        for key in states:
            self.states.pop(key, None)

    async def load_markets(self, markets: Iterable[MarketId]) -> dict[MarketId, MarketState]:
        """See `MarketStore.load_markets`."""
        return {market: self._state(market) for market in markets if market in self.markets}

    def _state(self, market: MarketId) -> MarketState:
        series = [self.series.get((market, interval.name), {}) for interval in self._rules.intervals]
        live = tuple(candles[max(candles)] if candles else None for candles in series)
        stats = self.figures.get(market)
        if stats is None:
            return MarketState(self.markets[market], live, RollingDay.of(()), None)
        since = stats.changed_minute - DAY_MS + MINUTE_MS
        minutes = [candle for time, candle in sorted(series[0].items()) if time >= since]
        day = RollingDay.of(minutes, stats.changed_minute)
        return MarketState(self.markets[market], live, day, stats.last_price)

    async def load_minutes(
        self, spans: Mapping[MarketId, tuple[Timestamp, Timestamp]]
    ) -> dict[MarketId, list[Candle]]:
        """See `MarketStore.load_minutes`."""
        minute = self._rules.intervals[0].name
        return {
            market: [
                candle
                for time, candle in sorted(self.series.get((market, minute), {}).items())
                if first <= time <= last
            ]
            for market, (first, last) in spans.items()
        }

    async def load_undos(self, above: int) -> list[BlockUndo]:
        """See `MarketStore.load_undos`."""
        return [undo for number, undo in sorted(self.undos.items(), reverse=True) if number > above]

    async def save_audited(self, block: BlockRef) -> None:
        """See `MarketStore.save_audited`."""
        self.audited = block.hash

    async def due(self, as_of: Timestamp, limit: int) -> list[MarketId]:
        """See `MarketStore.due`."""
        late = sorted((time, market) for market, time in self.dues.items() if time <= as_of)
        return [market for _, market in late[:limit]]

    def contents(self) -> dict[str, object]:
        """What readers see of the canonical chain, without empty series."""
        return {
            "candles": {key: dict(sorted(c.items())) for key, c in self.series.items() if c},
            "trades": {market: list(trades) for market, trades in self.trades.items() if trades},
            "markets": dict(self.markets),
            "sources": dict(self.sources),
        }


class FakeOutbox:
    """`Outbox` on a list of rows; what references point to comes from a `FakeStore`, if there is one."""

    def __init__(self, store: FakeStore | None = None) -> None:
        self._store = store
        self._own: list[Row] = []
        self.saved: list[Cursor] = []

    @property
    def rows(self) -> list[Row]:
        """All rows kept."""
        return self._store.rows if self._store else self._own

    def add(self, epoch: int, seq: int, event: str, data: bytes) -> None:
        """Append a row."""
        self.rows.append(Row(RowId(epoch, seq), event, data))

    async def cursor(self) -> Cursor | None:
        """See `Outbox.cursor`."""
        return self.saved[-1] if self.saved else None

    async def save(self, cursor: Cursor, previous: Cursor | None) -> None:
        """See `Outbox.save`."""
        found = self.saved[-1] if self.saved else None
        if found != previous:
            raise Superseded(f"expected the cursor {previous}, found {found}")
        self.saved.append(cursor)

    async def read(self, after: RowId, limit: int) -> list[Row]:
        """See `Outbox.read`."""
        return [row for row in self.rows if row.id > after][:limit]

    async def holds(self, row: RowId) -> bool:
        """See `Outbox.holds`."""
        return any(kept.id == row for kept in self.rows)

    async def candles(
        self, references: Sequence[tuple[MarketId, Interval, Timestamp]]
    ) -> list[dict[str, object]]:
        """See `Outbox.candles`."""
        items: list[dict[str, object]] = []
        for market, interval, open_time in references:
            item: dict[str, object] = {"s": market, "i": interval.name, "t": open_time}
            series = self._store.series.get((market, interval.name), {}) if self._store else {}
            if self._store and open_time in series:
                item |= candle_fields(series[open_time], self._store.markets[market])
                item["T"] = open_time + interval.ms - 1
            else:
                item["deleted"] = True
            items.append(item)
        return items

    async def stats(self, markets: Sequence[MarketId]) -> list[dict[str, object]]:
        """See `Outbox.stats`."""
        items: list[dict[str, object]] = []
        for market in markets:
            figures = self._store.figures.get(market) if self._store else None
            item: dict[str, object] = {"s": market, "deleted": True}
            if self._store and figures:
                item = {"s": market, **stats_fields(figures, self._store.markets[market])}
            items.append(item)
        return items


Outcome = Literal["ok", "away", "lost"]
"""`away`: nothing was written; `lost`: all was written, the answer did not come."""


class FlakyStore:
    """A `MarketStore` whose commits fail as scripted; everything else is the store's own."""

    def __init__(self, store: MarketStore) -> None:
        self._store = store
        self.outcomes: deque[Outcome] = deque()

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def commit(self, changes: ChangeSet) -> Head:
        """See `MarketStore.commit`."""
        outcome = self.outcomes.popleft() if self.outcomes else "ok"
        if outcome == "away":
            raise StoreUnavailable("no connection")
        head = await self._store.commit(changes)
        if outcome == "lost":
            raise StoreUnavailable("no answer")
        return head

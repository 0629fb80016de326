"""The follower: the one writer of its stream.

Start-up is recovery: it reads the committed head and goes on from there. Every step asks how the node's
newest block relates to our head and does the one thing that follows: load history, commit the next block,
roll back, or let time pass.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from listener.application.changes import ChangeSet, Head, MarketState
from listener.application.errors import (
    ListenerError,
    OrphanedHead,
    StoreUnavailable,
    Superseded,
)
from listener.application.history import History
from listener.application.interfaces import (
    AlertStore,
    ChainSource,
    Clock,
    HeadHints,
    Lease,
    MarketStore,
    Observer,
    Signal,
)
from listener.application.rules import Rules
from listener.application.services.alert_book import AlertBook, NoAlerts
from listener.application.services.corrections import Corrections
from listener.application.services.fetching import Fetcher, FetchLimits
from listener.application.services.finality import FinalBlocks
from listener.application.services.fork import find_ancestor
from listener.application.services.loading import Behind, Runs
from listener.application.services.markets import Markets
from listener.application.services.recovery import Recovery
from listener.application.services.tip_watch import TipWatch
from listener.application.services.undos import RecentUndos
from listener.application.state import StreamState, Written
from listener.application.use_cases.process_block import closed_by, process_blocks
from listener.application.use_cases.refresh_stats import refresh
from listener.application.use_cases.resolve_block import (
    Resolved,
    resolve_blocks,
    resolve_history,
    tokens_to_read,
)
from listener.application.use_cases.rollback import minutes_since, roll_back
from listener.domain.chain import Extend, Gap, Reorg, Stale, relate
from listener.domain.entities import TokenInfo
from listener.domain.facts import BlockFacts
from listener.domain.value_objects import MINUTE_MS, Address, BlockRef, MarketId, Timestamp

REFRESH_SLICE: Final = 200
"""Markets brought up to date by one refresh commit, so that it never delays a block for long."""

AUDIT_PATIENCE_S: Final = 30.0
"""How long history waits for an audit that makes no progress."""
AUDIT_POLL_S: Final = 0.2
AUDIT_LOOKS: Final = 5
"""After so many, the node is asked again what is ours still and how far history goes."""


@dataclass(frozen=True, slots=True)
class FollowerLimits:
    """Bounds of the follower.

    Attributes:
        poll_s: how often the tip is asked for when nobody hints at a new head.
        fetch: bounds of fetching while catching up.
        commit_trades: most trades in one commit while catching up.
        cached_markets: market states kept in memory; the least recently used go first.
        close_grace_ms: how long after its end a candle is closed by the wall clock, without a block.
        stall_s: a tip that stays the same for so long is reported; 0: never.
    """

    poll_s: float
    fetch: FetchLimits
    commit_trades: int
    cached_markets: int
    close_grace_ms: int = 5_000
    stall_s: float = 0


class Follower:
    """Follows the chain and commits what it says.

    Args:
        start: first block that matters, or None: the oldest deployment among `rules.factories`.
        tell_backend: write outbox rows; without a backend nobody would read them.
        signal: notified of each commit.
        audit_wanted: notified while history waits for the audit.
        lease: without it the stream is not taken over; None: nobody else wants it.
        alerts: rules that are watched; None: there are none.
    """

    def __init__(
        self,
        *,
        chain: ChainSource,
        hints: HeadHints,
        store: MarketStore,
        clock: Clock,
        observer: Observer,
        signal: Signal,
        audit_wanted: Signal,
        rules: Rules,
        limits: FollowerLimits,
        chain_id: int,
        start: int | None,
        fingerprint: Mapping[str, str],
        tell_backend: bool,
        lease: Lease | None = None,
        alerts: AlertStore | None = None,
    ) -> None:
        self._chain = chain
        self._hints = hints
        self._store = store
        self._clock = clock
        self._observer = observer
        self._signal = signal
        self._audit_wanted = audit_wanted
        self._rules = rules
        self._limits = limits
        self._tell = tell_backend
        self._recovery = Recovery(
            chain=chain,
            store=store,
            clock=clock,
            lease=lease,
            factories=rules.factories,
            chain_id=chain_id,
            start=start,
            fingerprint=fingerprint,
        )
        self._tip = TipWatch(clock, observer, limits.stall_s)
        self._final = FinalBlocks(chain, clock, rules.finality)
        self._fetcher = Fetcher(chain, limits.fetch)
        self._state: StreamState | None = None
        self._markets = Markets(store, limits.cached_markets, lambda: self.state.head, self._settle)
        self._alerts = AlertBook(alerts or NoAlerts(), store, clock, self._settle)
        self._corrections = Corrections()
        self._undos = RecentUndos()
        self._runs = Runs(limits.commit_trades)
        self._written = Behind()
        self._trades = 0
        self._passed_minute = -1
        self._hinted = False
        self._waits_for_audit: tuple[int, float] | None = None
        self._at_tip: Timestamp | None = None

    @property
    def state(self) -> StreamState:
        """What is committed, as far as this writer knows."""
        if self._state is None:
            raise RuntimeError("the follower has not recovered yet")
        return self._state

    @property
    def final(self) -> BlockRef | None:
        """See `FinalLedger.final`; None as well while history is loaded."""
        if self._state is None or len(self._state.window) < 2:
            return None
        return self._state.newest_final(self._rules)

    async def run(self) -> None:
        """Recover, then follow for ever. Raises `Superseded`, `Retryable` and `Fatal` errors.

        May be called again after a `Retryable` error: the identity of the chain is checked anew, and what
        was committed is not read again, unless the outcome of a commit is not known.
        """
        try:
            await self._resume()
            hint: BlockRef | None = None
            while True:
                await self._undo_what_was_wrong()
                more = await self._step(hint)
                self._tip.watch()
                await self._let_time_pass()
                self._observer.healthy("redis")
                hint = None if more else await self._hints.wait(self._limits.poll_s)
        except Superseded:
            self.forget()
            raise

    async def catch_up(self) -> None:
        """Recover, follow to what is the node's tip now, and bring figures to the wall clock once."""
        await self._resume()
        target = (await self._chain.tip()).number
        while await self._step(None) and self.state.head.number < target:
            pass
        await self._let_time_pass()

    async def load_to(self, target: BlockRef, as_of: Timestamp) -> None:
        """Recover, commit up to `target`, and bring figures to `as_of`.

        Raises:
            OrphanedHead: the target is not on the node's chain, or lies below what was loaded already.
        """
        await self._resume()
        while self.state.head.hash != target.hash:
            if (await self._chain.block(target.number)).hash != target.hash:
                raise OrphanedHead(f"block {target.number} {target.hash} is not on the node's chain")
            relation = relate(self.state.recent(), target)
            if isinstance(relation, Stale):
                raise OrphanedHead(f"block {target.number} lies below what was loaded already")
            if isinstance(relation, Reorg):
                await self._roll_back(relation.suspect)
            else:
                await self._catch_up(target)
        await self._pass_time_to(as_of, self.state.head.timestamp)

    def forget(self) -> None:
        """Forget what is committed: somebody else may have written since. The next `run` reads it again."""
        if self._state is not None:
            self._recovery.leave(self._state.head)
        self._state = None
        self._markets.clear()
        self._alerts.clear()
        self._corrections.clear()
        self._undos.clear()
        self._passed_minute = -1
        self._final.forget()
        self._waits_for_audit = None

    def unaudited(self, limit: int) -> Sequence[Written]:
        """See `Ledger.unaudited`."""
        return self._state.unaudited(self._rules, limit, self._tip.block) if self._state else ()

    def confirm(self, block: BlockRef) -> bool:
        """See `Ledger.confirm`."""
        if self._state is None or block not in self._state.recent():
            return False
        self._state.audited = max(self._state.audited, block.number)
        self._corrections.confirm(block.number)
        return True

    def correct(self, facts: BlockFacts) -> bool:
        """See `Ledger.correct`."""
        if self._state is None or facts.block not in self._state.recent()[1:]:
            return False
        self._corrections.add(facts)
        return True

    async def _resume(self) -> None:
        identity = await self._recovery.identify()
        if self._state is None:
            self._state = await self._recovery.take_over(identity)
        await self._alerts.refresh()
        await self._final.ask(self.state)

    async def _step(self, hint: BlockRef | None) -> bool:
        """Do the one thing that follows from the newest known block; whether there may be more to do.

        A hint may be late, from a losing fork, or nonsense: it can only be the next block, and even that is
        asked for by its hash. Everything else follows from the node's own tip.
        """
        now, self._at_tip = self._clock.now(), None
        tip = hint or await self._ask_tip(told=self._hinted)
        self._hinted = hint is not None
        relation = relate(self.state.recent(), tip)
        if isinstance(relation, Extend):
            await self._commit_live(await self._chain.facts(tip))
        elif hint is not None:
            return True
        elif isinstance(relation, Gap):
            await self._catch_up(tip)
        elif isinstance(relation, Reorg):
            await self._roll_back(relation.suspect)
        if self.state.head.number >= tip.number or isinstance(relation, Stale):
            self._at_tip = None if hint else now
            self._observer.synced(synced=True, number=self.state.head.number)
        return not isinstance(relation, Stale)

    async def _ask_tip(self, *, told: bool) -> BlockRef:
        """The node's newest block."""
        tip = await self._chain.tip()
        self._observer.healthy("node")
        self._tip.seen(tip)
        if not told and tip.number > self.state.head.number:
            self._hints.overtaken(tip)
        return tip

    async def _catch_up(self, tip: BlockRef) -> None:
        """Commit final blocks by ranges, then the others one by one; a block that was corrected alone."""
        final, last = await self._final.newest(self.state, tip), tip.number
        corrected = self._corrections.next_above(self.state.head.number)
        if corrected is not None and corrected <= final:
            final, last = corrected - 1, corrected
        if self.state.head.number < final:
            self._observer.synced(synced=False, number=self.state.head.number + 1)
            if self._audit_is_behind():
                return await self._wait_for_audit()
            if not await self._load_history(final, tip):
                return await self._roll_back(self.state.head.number - 1)
        async with aclosing(self._fetcher.blocks(self.state.head.number + 1, last)) as singles:
            async for facts in singles:
                if facts.block.parent_hash != self.state.head.hash:
                    return await self._roll_back(self.state.head.number - 1)
                await self._commit_live(facts)
        return None

    async def _load_history(self, final: int, tip: BlockRef) -> bool:
        """Commit final blocks by ranges, each run while the next one is folded; False: they are not ours.

        While a run is written, the state here is ahead of the store. Nothing is told of it before it is
        committed, and a commit that fails makes us forget it.
        """
        newest = self.state.head.hash
        self._runs.clear()
        try:
            async with aclosing(self._fetcher.ranges(self.state.head.number + 1, final)) as ranges:
                async for part in ranges:
                    if part.blocks[0].block.parent_hash != newest:
                        break
                    newest = part.blocks[-1].block.hash
                    for run in self._runs.add(part):
                        await self._commit_history(run, tip)
            for run in self._runs.rest():
                await self._commit_history(run, tip)
        except asyncio.CancelledError:
            self._written.cancel()
            with suppress(ListenerError):  # nobody asks any more, and the cancellation must not get lost
                await self._settle()
            raise
        except Exception:
            await self._settle()
            raise
        await self._settle()
        return newest == self.state.head.hash and self.state.head.number == final

    def _audit_is_behind(self) -> bool:
        """Whether blocks wait for a second look that they would lose to history, and it may still come.

        Final blocks that are committed by ranges cannot be undone, nor can what lies below them.
        """
        waiting = self.unaudited(1) if self._rules.audit_blocks else ()
        if not waiting:
            self._waits_for_audit = None
            return False
        oldest, now = waiting[0].block.number, self._clock.monotonic()
        if self._waits_for_audit is None or self._waits_for_audit[0] != oldest:
            self._waits_for_audit = oldest, now
        return now - self._waits_for_audit[1] < AUDIT_PATIENCE_S

    async def _wait_for_audit(self) -> None:
        """Let the audit look at what is ours still; nobody can look at what is not."""
        head = self.state.head
        if (await self._chain.block(head.number)).hash != head.hash:
            return await self._roll_back(head.number - 1)
        for _ in range(AUDIT_LOOKS):
            self._audit_wanted.notify()
            await self._clock.sleep(AUDIT_POLL_S)
            if self._corrections.to_undo or not self.unaudited(1):
                break
        return None

    async def _commit_history(self, run: History, tip: BlockRef) -> None:
        """Fold a run, wait until the one before it is committed, and begin to commit it."""
        started = self._clock.monotonic()
        await self._alerts.refresh()
        tokens = await self._tokens(run.blocks)
        watched = self._alerts.watched(run.blocks[-1].block)
        resolved = resolve_history(self.state, run, tokens, self._rules, watched)
        markets = await self._touched(resolved)
        watch = await self._alerts.watch(markets, resolved.blocks[0], self.state.head.timestamp)
        changes = process_blocks(
            self.state, markets, resolved, self._rules, live=False, undoable=False, watch=watch
        )
        await self._settle()
        self._recovery.used(changes.head.gen)
        self._follow(changes)
        await self._written.start(self._write(changes, tip, started))

    async def _write(self, changes: ChangeSet, tip: BlockRef, started: float) -> None:
        """Commit what is followed already."""
        try:
            await self._store.commit(changes)
        except StoreUnavailable:
            self._runs.failed()
            raise
        self._runs.succeeded()
        self._trades += changes.counted
        self._tell_committed(changes, started)
        self._observer.progress(changes.head.number, tip.number, self._trades)

    async def _commit_live(self, facts: BlockFacts) -> None:
        await self._final.ask(self.state)
        right = self._corrections.of(facts.block) or facts
        await self._process(right)

    async def _undo_what_was_wrong(self) -> None:
        """Make the parent of a block that the audit has corrected the head again."""
        while wrong := self._corrections.take_to_undo():
            for block in wrong:
                if block.number <= self.state.window[0].block.number:
                    self._observer.audit_missed(block.number, block.number)
            for parent, written in pairwise(self.state.window):
                right = self._corrections.of(written.block)
                if right and written.block in wrong and written.digest != right.digest:
                    await self._undo(parent.block)
                    break

    async def _process(self, facts: BlockFacts) -> None:
        """Resolve, load, fold, commit one block that can be undone."""
        started = self._clock.monotonic()
        await self._alerts.refresh()
        tokens = await self._tokens([facts])
        resolved = resolve_blocks(self.state, [facts], tokens, self._rules)
        markets = await self._touched(resolved)
        watch = await self._alerts.watch(markets, facts.block, self.state.head.timestamp)
        changes = process_blocks(
            self.state, markets, resolved, self._rules, live=self._tell, undoable=True, watch=watch
        )
        await self._commit_and_follow(changes, started)
        self._trades += changes.counted

    async def _touched(self, resolved: Resolved) -> dict[MarketId, MarketState]:
        """States of the markets that blocks touch, but for the new ones."""
        markets = await self._markets.load_ours(resolved.touched() - resolved.created.keys())
        as_of = max(self.state.head.as_of, resolved.blocks[-1].timestamp)
        return await self._markets.able_to_advance(markets, as_of)

    async def _tokens(self, blocks: Sequence[BlockFacts]) -> Mapping[Address, TokenInfo]:
        wanted = tokens_to_read(self.state, blocks, self._rules)
        return await self._chain.tokens(wanted) if wanted else {}

    async def _roll_back(self, suspect: int) -> None:
        """Find the newest block that both chains have, and make it the head."""
        await self._undo(await find_ancestor(self.state, suspect, self._chain, self._tip.highest))

    async def _undo(self, ancestor: BlockRef) -> None:
        """Undo the blocks above `ancestor`."""
        started = self._clock.monotonic()
        orphaned = [block for block in reversed(self.state.recent()) if block.number > ancestor.number]
        undos = self._undos.of(orphaned)
        if undos is None:
            undos = await self._store.load_undos(ancestor.number)
        if [undo.block for undo in undos] != orphaned:
            raise Superseded(f"before-images above block {ancestor.number} are not those of our blocks")
        affected = {undo.market for block in undos for undo in block.markets}
        states = await self._markets.load_ours(affected)
        span = (minutes_since(undos), self.state.head.as_of)
        minutes = await self._store.load_minutes(dict.fromkeys(affected, span))
        changes = roll_back(
            self.state,
            ancestor,
            undos,
            {market: state.market for market, state in states.items()},
            minutes,
            self._rules,
            live=self._tell,
            alert_rules=self._alerts.rules,
        )
        await self._commit_and_follow(changes, started)

    async def _let_time_pass(self) -> None:
        """Bring rolling figures to the wall clock, a slice of the due markets at a time.

        The clock counts as it was when our head was the newest block: later ones may have come since.
        Figures change on the minute only, so most calls have nothing to do and ask nobody.
        """
        if self._at_tip is None:
            return
        now, state = self._at_tip, self.state
        as_of = max(state.head.as_of, now - now % MINUTE_MS)
        closing = max(state.head.timestamp, now - self._limits.close_grace_ms)
        owed = self._tell and state.resync_owed
        if (
            as_of // MINUTE_MS == self._passed_minute
            and not owed
            and not closed_by(state, closing, self._rules)
        ):
            return
        await self._pass_time_to(as_of, closing)

    async def _pass_time_to(self, as_of: Timestamp, closing: Timestamp) -> None:
        state = self.state
        while True:
            started = self._clock.monotonic()
            due = await self._store.due(as_of, REFRESH_SLICE)
            markets = await self._markets.able_to_advance(await self._markets.load(due), as_of)
            changes = refresh(state, markets, as_of, closing, self._rules, live=self._tell)
            if changes is not None:
                await self._commit_and_follow(changes, started)
            if len(due) < REFRESH_SLICE:
                break
        self._passed_minute = as_of // MINUTE_MS

    async def _settle(self) -> None:
        """Wait for the commit that is under way; where that fails, see `_commit`."""
        try:
            await self._written.settle()
        except BaseException:
            self.forget()
            raise

    async def _commit_and_follow(self, changes: ChangeSet, started: float) -> None:
        changes.head = await self._commit(changes)
        self._follow(changes)
        self._tell_committed(changes, started)

    async def _commit(self, changes: ChangeSet) -> Head:
        """Commit.

        Where the answer is lost, the commit may have happened, or may still happen. Then nothing that we know
        is certain: the next `run` reads what is stored and raises `gen`, after which it cannot happen any
        more.
        """
        self._recovery.used(changes.head.gen)
        try:
            return await self._store.commit(changes)
        except BaseException:
            self.forget()
            raise

    def _follow(self, changes: ChangeSet) -> None:
        if self._rules.audit_blocks and not changes.reorg and (missed := self.state.missed_by_audit(changes)):
            self._observer.audit_missed(missed[0], missed[-1])
        self.state.apply(changes)
        self._markets.follow(changes)
        self._alerts.follow(changes)
        self._undos.follow(changes)

    def _tell_committed(self, changes: ChangeSet, started: float) -> None:
        self._signal.notify()
        self._observer.committed(changes, self._clock.monotonic() - started)

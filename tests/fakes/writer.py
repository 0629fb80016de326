"""A writer without a follower: applies blocks, rolls them back and lets time pass, one commit each."""

from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from listener.application.changes import ChangeSet, MarketState
from listener.application.interfaces import AlertStore, ChainIdentity, MarketStore
from listener.application.rules import Finality, Rules
from listener.application.services.alert_book import AlertBook, NoAlerts
from listener.application.state import StreamState
from listener.application.use_cases.process_block import process_blocks
from listener.application.use_cases.refresh_stats import refresh
from listener.application.use_cases.resolve_block import resolve_blocks, tokens_to_read
from listener.application.use_cases.rollback import roll_back
from listener.domain.facts import BlockFacts
from listener.domain.value_objects import MarketId, Timestamp
from tests.fakes.build import created, rules
from tests.fakes.chain import LocalChain
from tests.fakes.clock import FakeClock
from tests.fakes.store import FakeStore

T = TypeVar("T")


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never has to wait."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    coroutine.close()
    raise AssertionError("the coroutine waits for something")


async def following() -> "Writer":
    """A writer in memory that has followed a chain on which market 0 was created."""
    by = rules(finality=Finality(4))
    writer = Writer(LocalChain(), FakeStore(by), by)
    await writer.start()
    writer.chain.mine(created(0))
    await writer.follow()
    return writer


async def _settled() -> None:
    """Nothing is under way."""


class Writer:
    """Commits what a chain says.

    Attributes:
        state: what is committed.
        kept: market states kept in memory, as the follower keeps them.
        book: alert rules, as the follower keeps them.
    """

    def __init__(
        self,
        chain: LocalChain,
        store: MarketStore,
        rules: Rules,
        *,
        live: bool = True,
        alerts: AlertStore | None = None,
    ) -> None:
        self.chain = chain
        self.store = store
        self.rules = rules
        self.live = live
        self.kept: dict[MarketId, MarketState] = {}
        self.clock = FakeClock()
        self.book = AlertBook(alerts or NoAlerts(), store, self.clock, _settled)
        self._state: StreamState | None = None

    @property
    def state(self) -> StreamState:
        """What is committed."""
        assert self._state is not None, "call start first"
        return self._state

    async def start(self, base: int = 0, now: Timestamp = 1) -> None:
        """Create the stream if there is none, and take it over."""
        first = self.chain.blocks[base].block
        identity = ChainIdentity(self.chain.chain_id, self.chain.blocks[0].block.hash)
        await self.store.initialise(identity, first, {"PRICE_MODE": "execution"}, now)
        stored = await self.store.load()
        assert stored is not None
        stored.state.head = await self.store.take_over(
            stored.state.head, now, resync_owed=stored.state.resync_owed
        )
        self._state = stored.state
        self.kept.clear()
        self.book.clear()
        await self.book.refresh()

    async def _markets(self, wanted: Iterable[MarketId], as_of: Timestamp = 0) -> dict[MarketId, MarketState]:
        """States that can advance to `as_of`."""
        wanted = set(wanted)
        known = {market: self.kept[market] for market in wanted if market in self.kept}
        known |= await self.store.load_markets(sorted(wanted - known.keys()))
        spans = {market: span for market, state in known.items() if (span := state.day.wanted(as_of))}
        for market, minutes in (await self.store.load_minutes(spans)).items():
            known[market] = known[market]._replace(day=known[market].day.with_minutes(as_of, minutes))
        return known

    async def changes(self, blocks: Sequence[BlockFacts], *, undoable: bool = True) -> ChangeSet:
        """What committing `blocks` would change."""
        wanted = tokens_to_read(self.state, blocks, self.rules)
        tokens = {token: info for token in wanted if (info := self.chain.tokens.get(token)) is not None}
        resolved = resolve_blocks(self.state, blocks, tokens, self.rules)
        as_of = max(self.state.head.as_of, blocks[-1].block.timestamp)
        markets = await self._markets(resolved.touched() - resolved.created.keys(), as_of)
        watch = await self.book.watch(markets, blocks[0].block, self.state.head.timestamp)
        live = self.live and undoable
        return process_blocks(
            self.state, markets, resolved, self.rules, live=live, undoable=undoable, watch=watch
        )

    async def commit(self, changes: ChangeSet) -> ChangeSet:
        """Commit a change set and follow it."""
        changes.head = await self.store.commit(changes)
        self.state.apply(changes)
        self.book.follow(changes)
        if changes.reorg:
            for market in changes.reorg.markets:
                self.kept.pop(market, None)
        else:
            self.kept.update(changes.states)
        return changes

    async def apply(self, blocks: Iterable[BlockFacts]) -> None:
        """Commit blocks one by one, each of which can be undone."""
        for block in blocks:
            await self.commit(await self.changes([block]))

    async def follow(self) -> None:
        """Commit what is new on the chain."""
        await self.apply(self.chain.blocks[self.state.head.number + 1 :])

    async def load_history(self, blocks: Sequence[BlockFacts]) -> ChangeSet:
        """Commit final blocks together."""
        return await self.commit(await self.changes(blocks, undoable=False))

    async def roll_back(self, number: int) -> ChangeSet:
        """Make our block of that number the head again."""
        ancestor = next(block for block in self.state.recent() if block.number == number)
        undos = await self.store.load_undos(number)
        affected = {market.market for undo in undos for market in undo.markets}
        states = await self._markets(affected)
        minutes = await self.store.load_minutes(dict.fromkeys(affected, (0, self.state.head.as_of)))
        records = {market: state.market for market, state in states.items()}
        return await self.commit(
            roll_back(
                self.state,
                ancestor,
                undos,
                records,
                minutes,
                self.rules,
                live=self.live,
                alert_rules=self.book.rules,
            )
        )

    async def pass_time(self, as_of: Timestamp, limit: int = 1_000) -> ChangeSet | None:
        """Bring what is due to `as_of`."""
        as_of = max(as_of, self.state.head.as_of)
        due = await self.store.due(as_of, limit)
        markets = await self._markets(due, as_of)
        changes = refresh(self.state, markets, as_of, as_of, self.rules, live=self.live)
        return None if changes is None else await self.commit(changes)

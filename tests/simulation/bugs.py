"""Defects planted on purpose: a simulation that does not notice them proves nothing.

Each bug names plans among which its consequences must show.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import pytest

from listener.application.changes import ChangeSet, Head
from listener.application.errors import Superseded
from listener.application.services import follower
from listener.application.state import StreamState
from listener.application.use_cases import resolve_block, rollback
from listener.application.use_cases.rollback import roll_back
from listener.domain.facts import BlockFacts, MarketAnnounced, Swapped
from listener.domain.rolling import RollingDay
from listener.domain.value_objects import Address, BlockRef
from listener.infrastructure.blockchain.heads import HintSlot
from listener.infrastructure.blockchain.source import RpcChainSource
from tests.fakes.store import FakeStore
from tests.simulation.backend import BackendFaults
from tests.simulation.node import NodeFaults
from tests.simulation.plan import Faults, HintFaults, Plan, ProcessFaults
from tests.simulation.scenarios import holes, live, lost_tail, quiet, slow
from tests.simulation.store import StoreFaults, StoreLink
from tests.simulation.timeline import Pace

SEEDS: Final = range(40)
"""Among so many runs each bug must show."""


@dataclass(frozen=True)
class Bug:
    """A defect.

    Attributes:
        plan: runs in which it matters, by seed.
        replaced: owner, name and substitute of what is done wrong.
    """

    plan: Callable[[int], Plan]
    replaced: Sequence[tuple[object, str, object]]

    @contextmanager
    def planted(self) -> Iterator[None]:
        """While this lasts, it is done wrong."""
        with pytest.MonkeyPatch.context() as patch:
            for owner, name, substitute in self.replaced:
                patch.setattr(owner, name, substitute, raising=False)
            yield


# Two-step write: data first, the head in a second command.

_call = StoreLink._call
_commit = FakeStore.commit


async def _commit_in_two_steps(
    link: StoreLink, name: str, args: tuple[Any, ...], named: Mapping[str, Any]
) -> Any:
    if name != "commit":
        return await _call(link, name, args, named)
    head = await _call(link, "write_data", args, {})
    await _call(link, "write_head", (args[0].base, head), {})
    return head


async def _write_data(store: FakeStore, changes: ChangeSet) -> Head:
    head = await _commit(store, changes)
    store.committed = changes.base
    return head


async def _write_head(store: FakeStore, base: Head, head: Head) -> None:
    store._expect(base)
    store.committed = head


# Compare and set that does not compare, or not enough.


def _expect_nothing(store: FakeStore, base: Head) -> None:
    """Any head will do."""


def _expect_in_any_generation(store: FakeStore, base: Head) -> None:
    """The same block and row number will do, whoever wrote them."""
    found = store.committed
    if found is None or (found.hash, found.seq, found.as_of) != (base.hash, base.seq, base.as_of):
        raise Superseded("another head")


# Whoever emits our events is believed.

_resolve_blocks = resolve_block.resolve_blocks
_tokens_to_read = resolve_block.tokens_to_read


def _believing(state: StreamState, blocks: Sequence[BlockFacts], factory: Address) -> list[BlockFacts]:
    sources = {market: source for source, market in state.sources.items()}

    def believed(fact: Any) -> Any:
        if isinstance(fact, MarketAnnounced):
            return fact._replace(announcer=factory)
        if isinstance(fact, Swapped) and fact.market in sources:
            return fact._replace(source=sources[fact.market])
        return fact

    return [block._replace(facts=tuple(map(believed, block.facts))) for block in blocks]


def _resolve_anything(state: Any, blocks: Any, tokens: Any, rules: Any) -> Any:
    return _resolve_blocks(state, _believing(state, blocks, min(rules.factories)), tokens, rules)


def _read_any_token(state: Any, blocks: Any, rules: Any) -> Any:
    return _tokens_to_read(state, _believing(state, blocks, min(rules.factories)), rules)


# Blooms are not looked at.


async def _whatever_came(_source: object, _block: object, _header: object, own: object) -> object:
    return own


# A cancellation is taken for a time-out.

_wait = HintSlot.wait


async def _wait_stubbornly(slot: HintSlot, timeout_s: float) -> BlockRef | None:
    try:
        return await _wait(slot, timeout_s)
    except asyncio.CancelledError:
        return None


# The epoch is a counter in the store and nowhere else.

_take_over = FakeStore.take_over


async def _take_over_by_counting(store: FakeStore, head: Head, _floor: int, *, resync_owed: bool) -> Head:
    return await _take_over(store, head, 0, resync_owed=resync_owed)


# 24 h figures come back from before-images as they were, not as they are now.


def _roll_back_to_old_figures(*args: Any, **options: Any) -> ChangeSet:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RollingDay, "advance", lambda day, _as_of: day)
        changes = roll_back(*args, **options)
    changes.due.clear()
    return changes


# Retention trims by the newest block, which may be orphaned.


def _newest_timestamp(state: StreamState) -> int:
    return state.head.timestamp


# An orphaned block's alerts stay; rules stand as they did before a restart of the process only.


def _take_nothing_back(*_args: object) -> None:
    """What was told was told."""


def _states_in_memory(_store: FakeStore, _changes: ChangeSet) -> None:
    """The process knows."""


def _broken_off(seed: int) -> Plan:
    """Killed now and then, and commands that fail."""
    faults = Faults(store=StoreFaults(error=0.1), process=ProcessFaults(crashes=4))
    return replace(live(seed), faults=faults)


def _rivals(seed: int) -> Plan:
    """Two listeners, one of which is believed dead too early, and commands that come late."""
    return replace(
        live(seed),
        instances=2,
        faults=Faults(store=StoreFaults(slow=0.2, late=0.2), hints=HintFaults(drop=0.5)),
    )


def _late(seed: int) -> Plan:
    """Forks without a backend, whose commits come late."""
    plan = replace(
        quiet(seed), start=1, faults=Faults(store=StoreFaults(late=0.25), node=NodeFaults(orphans=True))
    )
    return replace(plan, pace=Pace(blocks=20, forks=0.4, fork_depth=2))


def _stopped(seed: int) -> Plan:
    """Asked to stop."""
    return replace(live(seed), faults=Faults(process=ProcessFaults(stops=2)))


def _told_less(seed: int) -> Plan:
    """A node that leaves out all logs of new blocks, under true blooms."""
    plan = replace(holes(seed), whole=True, bloom="strict")
    return replace(plan, faults=Faults(node=NodeFaults(missing="all", missing_s=10)))


def _forgetful(seed: int) -> Plan:
    """The store loses its tail, with a backend that may be slow to notice."""
    return replace(
        lost_tail(seed), faults=Faults(store=StoreFaults(tails=2), backend=BackendFaults(lost=0.1))
    )


def _unhurried(plan: Callable[[int], Plan], seed: int) -> Plan:
    """A slow chain that forks a lot."""
    made = plan(seed)
    return replace(made, pace=replace(made.pace, forks=0.4))


BUGS: Final[dict[str, Bug]] = {
    "two-step write": Bug(
        _broken_off,
        [
            (StoreLink, "_call", _commit_in_two_steps),
            (FakeStore, "write_data", _write_data),
            (FakeStore, "write_head", _write_head),
        ],
    ),
    "no compare": Bug(_rivals, [(FakeStore, "_expect", _expect_nothing)]),
    "compare without generation": Bug(_late, [(FakeStore, "_expect", _expect_in_any_generation)]),
    "no emitter check": Bug(
        live, [(follower, "resolve_blocks", _resolve_anything), (follower, "tokens_to_read", _read_any_token)]
    ),
    "bloom off": Bug(_told_less, [(RpcChainSource, "_agreed", _whatever_came)]),
    "swallowed cancellation": Bug(_stopped, [(HintSlot, "wait", _wait_stubbornly)]),
    "epoch in the store only": Bug(_forgetful, [(FakeStore, "take_over", _take_over_by_counting)]),
    "figures restored": Bug(partial(_unhurried, slow), [(follower, "roll_back", _roll_back_to_old_figures)]),
    "alerts not taken back": Bug(live, [(rollback, "take_back", _take_nothing_back)]),
    "states not in the commit": Bug(_broken_off, [(FakeStore, "_write_states", _states_in_memory)]),
    "trimmed before finality": Bug(
        partial(_unhurried, slow), [(StreamState, "final_timestamp", property(_newest_timestamp))]
    ),
}

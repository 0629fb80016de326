"""Failure cards between the chain source, the head subscription and a real node."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, Final, NamedTuple

import pytest

from listener.application.errors import NodeUnavailable, RangeTooLarge, Retryable
from listener.demo.launchpad import ETHER, Curve, Launchpad
from listener.demo.processes import start_anvil
from listener.domain.value_objects import Address, BlockRef, parse_address
from listener.infrastructure.blockchain import heads
from listener.infrastructure.blockchain.endpoints import Endpoints
from listener.infrastructure.blockchain.heads import HintSlot, NewHeads
from listener.infrastructure.blockchain.rpc import HttpRpc
from listener.infrastructure.blockchain.source import RpcChainSource
from listener.wiring import decoders, layouts
from tests.fakes.build import CHAIN_ID
from tests.fakes.observer import RecordingObserver
from tests.ports.cards import (
    CANCELLED,
    CANCELLED_BEFORE,
    DELAYED,
    HALF_OPEN,
    LATE,
    RESET,
    RESET_BEFORE,
    SWALLOWED,
    TORN_ANSWER,
    TORN_QUESTION,
    Card,
    Wire,
    every_card,
    expected,
    soon,
    suffer,
    wired,
)

IMPATIENT_S: Final = 1.0
"""Timeout of a request and of a subscription; what works takes milliseconds."""
PING_S: Final = 0.2
PLACES: Final = (0, 1, 2, 3)
"""Answers that pass before a subscription suffers: none, the handshake, the chain id, all."""


class Chain(NamedTuple):
    """A node with a factory, one market and some trades."""

    port: int
    launchpad: Launchpad
    curve: Curve


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    """A real node."""
    with start_anvil() as node:
        launchpad = Launchpad(f"http://127.0.0.1:{node.found}")
        curve = launchpad.create("A token", "A")
        for trader in range(3):
            launchpad.buy(curve, ETHER, trader)
        launchpad.rpc("anvil_mine", "0x5")
        yield Chain(int(node.found), launchpad, curve)


class Reader:
    """The chain source as the service has it, on a wire."""

    def __init__(self, wire: Wire, chain: Chain) -> None:
        self._rpc = HttpRpc(f"http://127.0.0.1:{wire.port}", IMPATIENT_S)
        self.source = RpcChainSource(
            Endpoints([self._rpc], CHAIN_ID, failures=1_000), decoders(), layouts=layouts()
        )
        self._factory = parse_address(chain.launchpad.factory.address)
        self._token = Address(chain.curve.token)
        self._known: BlockRef | None = None

    async def close(self) -> None:
        """Close connections."""
        await self._rpc.close()

    async def calls(self) -> list[Coroutine[Any, Any, object]]:
        """Every call of the port."""
        if self._known is None:
            self._known = await self.source.block(3)
        source = self.source
        return [
            source.identity(),
            source.tip(),
            source.finalized(),
            source.block(2),
            source.facts(self._known),
            self.history(),
            source.tokens([self._token]),
            source.deployment_block(self._factory),
        ]

    async def history(self) -> object:
        """With its trades one by one: only so can two answers be compared."""
        return (await self.source.history(1, 4)).facts()

    async def answers(self) -> list[object]:
        """What they answer, asked at the same time."""
        return list(await soon(asyncio.gather(*await self.calls())))


@pytest.fixture
async def wire(chain: Chain) -> AsyncIterator[Wire]:
    """The link to the node."""
    async with wired(chain.port) as made:
        yield made


@pytest.fixture
async def reader(wire: Wire, chain: Chain) -> AsyncIterator[Reader]:
    """A source on the wire. Whatever happened, it leaves no connection behind."""
    made = Reader(wire, chain)
    yield made
    await made.close()
    await wire.wait_links(0)


@every_card()
async def test_every_call_fails_in_time_and_works_again(wire: Wire, reader: Reader, card: Card) -> None:
    """All calls at once: an error that passes, no link is kept, and the next answers are the right ones."""
    right = await reader.answers()
    assert all(right)
    calls = await reader.calls()
    for ended in await suffer(wire, card, calls, anew=True):
        assert isinstance(ended, expected(card, NodeUnavailable, RangeTooLarge)), ended
        assert card.cancelled or isinstance(ended, Retryable)
    await wire.release()
    await wire.wait_links(0)
    assert await reader.answers() == right


@every_card(SWALLOWED, HALF_OPEN, RESET, TORN_ANSWER, CANCELLED)
async def test_half_of_several_answers_is_none(wire: Wire, reader: Reader, card: Card) -> None:
    """A call that asks twice fails in its second question as in its first."""
    source = reader.source
    for call in (source.identity, reader.history):
        right = await call()
        (ended,) = await suffer(wire, card, [call()], after=1)
        assert isinstance(ended, expected(card, NodeUnavailable, RangeTooLarge)), ended
        await wire.release()
        await wire.wait_links(0)
        assert await call() == right


@every_card(DELAYED, CANCELLED, CANCELLED_BEFORE)
async def test_a_late_answer_is_not_the_next_ones(wire: Wire, reader: Reader, card: Card) -> None:
    """After a timeout or a cancellation each block is the one that was asked for."""
    await reader.answers()
    await suffer(wire, card, [reader.source.block(number) for number in range(5)])
    await wire.release()
    for _ in range(5):
        blocks = await soon(asyncio.gather(*(reader.source.block(number) for number in range(10))))
        assert [block.number for block in blocks] == list(range(10))


async def test_connections_that_were_reset_while_idle_cost_nothing(wire: Wire, reader: Reader) -> None:
    """What died while nobody looked is noticed before it is used."""
    right = await reader.answers()
    wire.reset()
    await wire.wait_links(0)
    assert await reader.answers() == right


async def test_a_half_open_node_gathers_no_connections(wire: Wire, reader: Reader) -> None:
    """Attempt after attempt, each closes what it opened."""
    for _ in range(3):
        await suffer(wire, HALF_OPEN, [reader.source.tip(), reader.source.block(1)])
        await wire.wait_links(0)
    assert (await reader.source.tip()).number >= 8


class Subscription:
    """A head subscription on a wire."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.slot = HintSlot(0.1)
        self.observer = RecordingObserver()
        url = f"ws://127.0.0.1:{wire.port}"
        self.heads = NewHeads(url, CHAIN_ID, self.slot, self.observer, IMPATIENT_S)

    async def standing(self) -> asyncio.Task[None]:
        """Run it until it stands."""
        task = asyncio.create_task(self.heads.run())
        while not self.slot.subscribed and not task.done():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
        return task

    async def works(self, chain: Chain) -> None:
        """Run it anew: a block that is mined is hinted at."""
        task = await soon(self.standing())
        await asyncio.to_thread(chain.launchpad.rpc, "evm_mine")
        hint = await soon(self.slot.wait(5))
        assert hint
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(task)
        assert not self.slot.subscribed
        await self.wire.wait_links(0)

    async def suffers(self, card: Card, place: int, chain: Chain) -> None:
        """Play a card at a place: it must end, soon, and leave nothing behind."""
        self.wire.play(card, place, anew=True)
        task = asyncio.create_task(self.heads.run())
        if place == PLACES[-1] and not card.cancelled:
            while not self.slot.subscribed:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)
            await asyncio.to_thread(chain.launchpad.rpc, "evm_mine")
        if card.cancelled:
            await self.wire.wait_caught()
            task.cancel()
        with pytest.raises(expected(card, NodeUnavailable)):
            await soon(task)
        assert not self.slot.subscribed
        await self.wire.release()
        await self.wire.wait_links(0)


@pytest.fixture(autouse=True)
def quick_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead link is noticed after two of these."""
    monkeypatch.setattr(heads, "PING_S", PING_S)


@every_card(
    SWALLOWED,
    DELAYED,
    HALF_OPEN,
    LATE,
    RESET,
    RESET_BEFORE,
    TORN_ANSWER,
    TORN_QUESTION,
    CANCELLED,
    CANCELLED_BEFORE,
)
async def test_a_subscription_ends_and_can_be_made_again(chain: Chain, card: Card) -> None:
    """At the handshake, at each answer, and when it stands: a dead link is noticed by itself."""

    async def at(place: int) -> None:
        async with wired(chain.port) as wire:
            subscription = Subscription(wire)
            await subscription.suffers(card, place, chain)
            stood = place == PLACES[-1]
            assert subscription.observer.health == (["heads"] if stood else [])
            await subscription.works(chain)

    await asyncio.gather(*map(at, PLACES))

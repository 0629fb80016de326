"""Head hints: newHeads over a WebSocket of its own, or nothing but the clock."""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from listener.application.errors import InconsistentReply, NodeUnavailable, WrongChain
from listener.domain.value_objects import BlockRef
from listener.infrastructure.blockchain.rpc import RpcError
from listener.infrastructure.blockchain.wire import UNREADABLE, Header

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
PING_S: Final = 10.0
SILENT_AFTER: Final = 2
"""So often may the chain move on without a head before the subscription counts as dead."""


class _Params(msgspec.Struct):
    result: Header | None = None


class _Frame(msgspec.Struct):
    id: int | None = None
    result: str | None = None
    params: _Params | None = None
    error: RpcError | None = None


_FRAME: Final = msgspec.json.Decoder(_Frame)


class _Hears(Protocol):
    """The part of an observer that is told when the subscription stands."""

    def healthy(self, service: str) -> None:
        """It stands."""
        ...


class HintSlot:
    """The newest hint. One place, overwritten: a slow reader never holds up the socket.

    Args:
        poll_s: longest wait while nobody is subscribed.
    """

    def __init__(self, poll_s: float) -> None:
        self._poll_s = poll_s
        self._hint: BlockRef | None = None
        self._arrived = asyncio.Event()
        self._on_silence: Callable[[], None] | None = None
        self._newest = -1
        self._missed = 0

    @property
    def subscribed(self) -> bool:
        """Whether heads are expected to arrive by themselves."""
        return self._on_silence is not None

    def subscribe(self, on_silence: Callable[[], None]) -> None:
        """Heads are expected from now on; `on_silence` is called, once, if they do not come."""
        self._on_silence = on_silence
        self._newest = -1
        self._missed = 0

    def unsubscribe(self) -> None:
        """Heads are no longer expected."""
        self._on_silence = None

    def put(self, hint: BlockRef) -> None:
        """Replace the hint."""
        self._hint = hint
        self._newest = hint.number
        self._missed = 0
        self._arrived.set()

    def overtaken(self, tip: BlockRef) -> None:
        """See `HeadHints.overtaken`. Once may be a race; a second time the subscription is silent."""
        if self._on_silence is None or tip.number <= self._newest:
            return
        self._newest = tip.number
        self._missed += 1
        if self._missed >= SILENT_AFTER:
            on_silence, self._on_silence = self._on_silence, None
            on_silence()

    async def wait(self, timeout_s: float) -> BlockRef | None:
        """See `HeadHints.wait`."""
        try:
            async with asyncio.timeout(timeout_s if self.subscribed else min(timeout_s, self._poll_s)):
                await self._arrived.wait()
        except TimeoutError:
            return None
        self._arrived.clear()
        hint, self._hint = self._hint, None
        return hint


class NewHeads:
    """Subscribes to newHeads and puts every head into a slot.

    Args:
        url: `ws://` or `wss://`.
        chain_id: what the node must say its chain is, on every connection.
        slot: where hints go.
        observer: told when the subscription stands.
        timeout_s: for connecting and for each answer.
    """

    def __init__(self, url: str, chain_id: int, slot: HintSlot, observer: _Hears, timeout_s: float) -> None:
        self._url = url
        self._chain_id = chain_id
        self._slot = slot
        self._observer = observer
        self._timeout_s = timeout_s

    async def run(self) -> None:
        """Subscribe and listen until the connection ends.

        Raises:
            NodeUnavailable: the connection could not be made, or has ended.
            WrongChain: another chain answered.
        """
        try:
            async with connect(
                self._url,
                open_timeout=self._timeout_s,
                close_timeout=1,
                ping_interval=PING_S,
                ping_timeout=PING_S,
                max_size=MAX_MESSAGE_BYTES,
            ) as socket:
                async with asyncio.timeout(self._timeout_s):
                    self._check_chain(await self._ask(socket, 1, "eth_chainId"))
                    await self._ask(socket, 2, "eth_subscribe", "newHeads")
                self._observer.healthy("heads")
                await self._listen(socket)
        except (OSError, TimeoutError, WebSocketException, InconsistentReply, *UNREADABLE) as error:
            raise NodeUnavailable(f"newHeads: {type(error).__name__}: {error}") from error
        raise NodeUnavailable("newHeads: the node closed the connection")

    async def _ask(self, socket: ClientConnection, number: int, method: str, *params: str) -> str:
        """The result of one call; heads that come before it are hints like any other."""
        await socket.send(_request(number, method, *params))
        while True:
            frame = _FRAME.decode(await socket.recv())
            self._hint_at(frame)
            if frame.id != number and frame.error is None:
                continue
            if frame.result is None:
                told = f"{frame.error.code} {frame.error.message[:200]}" if frame.error else "no result"
                raise NodeUnavailable(f"newHeads: {method}: {told}")
            return frame.result

    def _check_chain(self, chain_id: str) -> None:
        try:
            served = int(chain_id, 16)
        except ValueError as error:
            raise NodeUnavailable(f"newHeads: not a chain id: {chain_id[:80]!r}") from error
        if served != self._chain_id:
            raise WrongChain(f"BLOCKCHAIN_WS_URL serves chain {served}, CHAIN_ID says {self._chain_id}")

    async def _listen(self, socket: ClientConnection) -> None:
        """Put heads into the slot until the connection ends, or the slot finds them missing."""
        try:
            async with asyncio.timeout(None) as patience:
                self._slot.subscribe(lambda: patience.reschedule(0))
                async for message in socket:
                    self._hint_at(_FRAME.decode(message))
        except TimeoutError as error:
            if not patience.expired():
                raise
            raise NodeUnavailable("newHeads: the subscription is silent, the chain is not") from error
        finally:
            self._slot.unsubscribe()

    def _hint_at(self, frame: _Frame) -> None:
        if frame.params and frame.params.result:
            self._slot.put(frame.params.result.ref())


def _request(number: int, method: str, *params: str) -> str:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).decode()

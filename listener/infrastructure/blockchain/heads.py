"""Head hints: newHeads over a WebSocket of its own, or nothing but the clock."""

import asyncio
from typing import Final, Protocol

import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from listener.application.errors import InconsistentReply, NodeUnavailable, WrongChain
from listener.domain.value_objects import BlockRef
from listener.infrastructure.blockchain.wire import UNREADABLE, Header

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
PING_S: Final = 10.0


class _Params(msgspec.Struct):
    result: Header | None = None


class _Frame(msgspec.Struct):
    id: int | None = None
    result: str | None = None
    params: _Params | None = None


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

    Attributes:
        subscribed: whether heads are expected to arrive by themselves.
    """

    def __init__(self, poll_s: float) -> None:
        self.subscribed = False
        self._poll_s = poll_s
        self._hint: BlockRef | None = None
        self._arrived = asyncio.Event()

    def put(self, hint: BlockRef) -> None:
        """Replace the hint."""
        self._hint = hint
        self._arrived.set()

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
                    await socket.send(_request(1, "eth_chainId"))
                    chain_id = _FRAME.decode(await socket.recv()).result
                    if chain_id is not None and int(chain_id, 16) != self._chain_id:
                        raise WrongChain(
                            f"BLOCKCHAIN_WS_URL serves chain {int(chain_id, 16)}, "
                            f"CHAIN_ID says {self._chain_id}"
                        )
                    await socket.send(_request(2, "eth_subscribe", "newHeads"))
                self._observer.healthy("heads")
                self._slot.subscribed = True
                async for message in socket:
                    frame = _FRAME.decode(message)
                    if frame.params and frame.params.result:
                        self._slot.put(frame.params.result.ref())
        except (OSError, TimeoutError, WebSocketException, InconsistentReply, *UNREADABLE) as error:
            raise NodeUnavailable(f"newHeads: {type(error).__name__}: {error}") from error
        finally:
            self._slot.subscribed = False
        raise NodeUnavailable("newHeads: the node closed the connection")


def _request(number: int, method: str, *params: str) -> str:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).decode()

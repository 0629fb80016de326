"""Raw JSON-RPC over HTTP. Replies are decoded straight into typed structs.

Source: https://ethereum.github.io/execution-apis/ and EIP-1474 for error codes.
"""

import itertools
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from listener.application.errors import NodeBehind, NodeSlow, NodeUnavailable, NodeUnsuitable, RangeTooLarge
from listener.infrastructure.blockchain.wire import UNREADABLE

T = TypeVar("T")

MAX_REPLY_BYTES: Final = 512 * 1024 * 1024
MAX_REFUSAL_BYTES: Final = 64 * 1024
MAX_BATCH_CALLS: Final = 100
REVERT_CODES: Final = frozenset({3, -32015})
"""Geth's and Nethermind's codes for a call that the contract refused."""

_TOO_LARGE: Final = re.compile(
    r"too many (results|logs|blocks)|query returned more than|range (is )?too (large|wide|big)|"
    r"(block|eth_getlogs) range|exceeds? (the )?(max|limit|range)|limited to|response size|"
    r"max(imum)? (results|range|block)",
    re.IGNORECASE,
)
_UNKNOWN_BLOCK: Final = re.compile(r"unknown block|block not found|header not found|not found", re.IGNORECASE)
_RATE_LIMIT: Final = re.compile(r"rate|too many requests|capacity|throttl|credits|quota", re.IGNORECASE)
_REVERTED: Final = re.compile(
    r"(execution )?revert|invalid opcode|bad instruction|out of gas|invalid jump|"
    r"stack (under|over)flow|vm exception",
    re.IGNORECASE,
)


class RpcError(msgspec.Struct):
    """The `error` of a JSON-RPC reply."""

    code: int = 0
    message: str = ""

    @property
    def is_revert(self) -> bool:
        """Whether a contract refused a call, rather than the node."""
        if self.code in REVERT_CODES or _REVERTED.match(self.message):
            return True
        return bool(_REVERTED.search(self.message)) and not _RATE_LIMIT.search(self.message)


class Reply(msgspec.Struct):
    """A JSON-RPC reply whose result is not decoded yet."""

    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: RpcError | None = None


_BATCH: Final = msgspec.json.Decoder(list[Reply])
_CALL: Final = msgspec.json.Decoder(Reply)


class HttpRpc:
    """A JSON-RPC endpoint.

    Args:
        url: `http://` or `https://`, possibly with a key in it: never logged.
        timeout_s: for a whole request.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url
        self.host = urlsplit(url).hostname or "?"
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._ids = itertools.count(1)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close connections."""
        if self._session:
            await self._session.close()

    async def call(self, method: str, params: Sequence[object], kind: type[T]) -> T | None:
        """One call; `None` where the node answers `null`.

        Raises:
            NodeUnavailable, NodeBehind, RangeTooLarge, NodeUnsuitable.
        """
        body = await self._post(self._request(method, params))
        try:
            reply = _CALL.decode(body)
        except UNREADABLE as error:
            raise NodeUnavailable(f"{self.host}: {method}: unreadable reply: {error}") from error
        return result(reply, method, kind)

    async def batch(self, calls: Sequence[tuple[str, Sequence[object]]]) -> list[Reply]:
        """Several calls in one request, replies in the order of the calls; errors are left in them."""
        replies: list[Reply] = []
        for start in range(0, len(calls), MAX_BATCH_CALLS):
            replies += await self._batch(calls[start : start + MAX_BATCH_CALLS])
        return replies

    async def _batch(self, calls: Sequence[tuple[str, Sequence[object]]]) -> list[Reply]:
        requests = [self._request(method, params) for method, params in calls]
        body = await self._post(requests)
        try:
            if body[:1] != b"[":
                error = _CALL.decode(body).error or RpcError(message="a single reply to a batch")
                raise translated(error, calls[0][0])
            found = {reply.id: reply for reply in _BATCH.decode(body)}
            return [found[request["id"]] for request in requests]
        except (*UNREADABLE, KeyError) as error:
            raise NodeUnavailable(f"{self.host}: unreadable reply to a batch: {error}") from error

    def _request(self, method: str, params: Sequence[object]) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)}

    async def _post(self, request: object) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout,
                headers={"Content-Type": "application/json"},
                connector=aiohttp.TCPConnector(limit=32),
            )
        try:
            async with self._session.post(self._url, data=msgspec.json.encode(request)) as response:
                if response.status != 200:
                    return await self._refusal(response)
                chunks = bytearray()
                async for chunk in response.content.iter_any():
                    chunks += chunk
                    if len(chunks) > MAX_REPLY_BYTES:
                        raise RangeTooLarge(f"{self.host}: a reply of more than {MAX_REPLY_BYTES} bytes")
                return bytes(chunks)
        except TimeoutError as error:
            raise NodeSlow(f"{self.host}: no answer in {self._timeout.total} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise NodeUnavailable(f"{self.host}: {type(error).__name__}: {error}") from error

    async def _refusal(self, response: aiohttp.ClientResponse) -> bytes:
        """The body of an HTTP error, if it is a JSON-RPC error: some providers send both."""
        body = await response.content.read(MAX_REFUSAL_BYTES)
        with suppress(*UNREADABLE):
            if response.status != 429 and _CALL.decode(body).error:
                return body
        text = body.decode("utf-8", "replace")
        raise NodeUnavailable(f"{self.host}: HTTP {response.status}: {text[:200]}")


def result(reply: Reply, method: str, kind: type[T]) -> T | None:
    """The result of one reply of a batch.

    Raises:
        NodeUnavailable, NodeBehind, RangeTooLarge, NodeUnsuitable.
    """
    if reply.error:
        raise translated(reply.error, method)
    try:
        return msgspec.json.decode(reply.result, type=kind | None)
    except UNREADABLE as error:
        raise NodeUnavailable(f"{method}: unreadable reply: {error}") from error


def translated(error: RpcError, method: str) -> Exception:
    """Our error for a node's. Unknown errors count as passing: nodes word them freely."""
    text = f"{method}: {error.code} {error.message[:300]}"
    if error.code == 429 or _RATE_LIMIT.search(error.message):
        return NodeUnavailable(text)
    if method == "eth_getLogs" and _TOO_LARGE.search(error.message):
        return RangeTooLarge(text)
    if _UNKNOWN_BLOCK.search(error.message) and error.code != -32601:
        return NodeBehind(text)
    if error.code == -32601:
        return NodeUnsuitable(f"the node does not offer {text}")
    return NodeUnavailable(text)

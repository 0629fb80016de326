"""Raw JSON-RPC over HTTP. Replies are decoded straight into typed structs.

Source: https://ethereum.github.io/execution-apis/ and EIP-1474 for error codes.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, Final, Generic, TypeVar, cast
from urllib.parse import urlsplit

import aiohttp
import msgspec

from listener.application.errors import (
    ListenerError,
    NodeBehind,
    NodeLimited,
    NodeSlow,
    NodeUnavailable,
    NodeUnsuitable,
    RangeTooLarge,
)
from listener.infrastructure.blockchain.wire import UNREADABLE

T = TypeVar("T")

MAX_REPLY_BYTES: Final = 512 * 1024 * 1024
MAX_REFUSAL_BYTES: Final = 64 * 1024
MAX_REASON_BYTES: Final = 1024
MAX_BATCH_CALLS: Final = 100
REVERT_CODES: Final = frozenset({3, -32015})
"""Geth's and Nethermind's codes for a call that the contract refused."""

MAX_RETRY_AFTER_S: Final = 3600.0
"""Longest wait that an endpoint may ask for: beyond it, it is asked again."""

_LIMITED_CODES: Final = frozenset({429, -32029})
_RATE: Final = re.compile(
    r"too many requests?\b|rate[ -]?limit|\brate (exceeded|capped)|(request|call|usage) rate|\brps\b|throttl|"
    r"compute units?|\bcredits?\b|\b(CU|requests?)/s|per[ -](second|minute|day|month)\b|"
    r"/(s|sec|second|minute)\b|(daily|monthly|concurrent|request) (request|capacity|quota|limit|count)",
    re.IGNORECASE,
)
"""What only a rate limit is called."""
_LIMIT: Final = re.compile(
    r"limit exceeded|\bcapacity\b|\bquotas?\b|exceeded your|upgrade your", re.IGNORECASE
)
"""What is a rate limit unless it speaks of blocks or logs."""
_LIMIT_CODE: Final = -32005
"""EIP-1474, `limit exceeded`: of requests, or of results."""
_SIZE: Final = re.compile(
    r"\b(range|ranges|blockrange|blocks?|results|logs|response|records|size|maxblockrange)\b", re.IGNORECASE
)
_TOO_MUCH: Final = re.compile(
    r"exceed|limit|\bmax|more than|at most|up to a?\b|\btoo (many|much|large|wide|big|high|long|broad)|"
    r"\b(greater|bigger|larger|smaller|narrow|reduce|reducing|shorten)\b|\bover \d",
    re.IGNORECASE,
)
"""A refusal for its size names a size and says that it is too much, in whatever words."""
_TOO_SLOW: Final = re.compile(r"tim(ed|e) ?out|deadline exceeded|took too long|duration", re.IGNORECASE)
_RETRY_IN: Final = re.compile(
    r"(?:backoff_seconds\W+|(?:retry|try again)(?: (?:in|after))?:? )(\d+(?:\.\d+)?) ?(ms|s|sec|m|$|\W)",
    re.IGNORECASE,
)
_UNKNOWN_BLOCK: Final = re.compile(
    r"unknown block|not found|cannot be found|beyond (the )?(current )?head|after last accepted block|"
    r"cannot query unfinalized|block .{0,40}not (yet )?available",
    re.IGNORECASE,
)
NOT_OFFERED_CODES: Final = frozenset({-32601, -32004})
_REVERTED: Final = re.compile(
    r"(execution )?revert|invalid opcode|bad instruction|out of gas|invalid jump|"
    r"stack (under|over)flow|vm exception",
    re.IGNORECASE,
)


class RpcError(msgspec.Struct):
    """The `error` of a JSON-RPC reply."""

    code: int = 0
    message: str = ""
    data: msgspec.Raw = msgspec.Raw(b"")

    def text(self) -> str:
        """Message and data: some providers say in the data what is wrong."""
        return f"{self.message} {bytes(self.data)[:MAX_REASON_BYTES].decode('utf-8', 'replace')}"

    @property
    def is_revert(self) -> bool:
        """Whether a contract refused a call, rather than the node."""
        if self.code in REVERT_CODES or _REVERTED.match(self.message):
            return True
        return bool(_REVERTED.search(self.message)) and not self.is_rate_limit

    @property
    def is_rate_limit(self) -> bool:
        """Whether the endpoint has had enough of us, rather than of what was asked."""
        if self.code in _LIMITED_CODES or _RATE.search(self.message):
            return True
        if self.is_too_large:
            return False
        return self.code == _LIMIT_CODE or bool(_LIMIT.search(self.message))

    @property
    def is_too_large(self) -> bool:
        """Whether it speaks of a size that is too much; only of logs can that be said."""
        text = self.text()
        return bool(_SIZE.search(text) and _TOO_MUCH.search(text))


class Reply(msgspec.Struct):
    """A JSON-RPC reply whose result is not decoded yet."""

    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: RpcError | None = None


class Typed(msgspec.Struct, Generic[T]):
    """A JSON-RPC reply of one call, decoded at once."""

    result: T | None = None
    error: RpcError | None = None


@cache
def _decoder(kind: object) -> msgspec.json.Decoder[Any]:
    return _CALL if kind is msgspec.Raw else msgspec.json.Decoder(Typed[kind])  # type: ignore[valid-type]


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
            reply: Typed[T] = _decoder(kind).decode(body)  # type: ignore[arg-type]
        except UNREADABLE as error:
            raise NodeUnavailable(f"{self.host}: {method}: unreadable reply: {error}") from error
        if reply.error:
            raise translated(reply.error, method)
        return reply.result

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
                chunks: list[bytes] = []
                size = 0
                async for chunk in response.content.iter_any():
                    chunks.append(chunk)
                    size += len(chunk)
                    if size > MAX_REPLY_BYTES:
                        raise RangeTooLarge(f"{self.host}: a reply of more than {MAX_REPLY_BYTES} bytes")
                return b"".join(chunks)
        except TimeoutError as error:
            raise NodeSlow(f"{self.host}: no answer in {self._timeout.total} s") from error
        except aiohttp.ClientResponseError as error:  # its text has the URL
            raise NodeUnavailable(f"{self.host}: {type(error).__name__}: {error.message}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise NodeUnavailable(f"{self.host}: {type(error).__name__}: {error}") from error

    async def _refusal(self, response: aiohttp.ClientResponse) -> bytes:
        """The body of an HTTP error, if it is a JSON-RPC error: some providers send both."""
        body = await response.content.read(MAX_REFUSAL_BYTES)
        with suppress(*UNREADABLE):
            if response.status != 429 and _CALL.decode(body).error:
                return body
        text = body.decode("utf-8", "replace")
        told = f"{self.host}: HTTP {response.status}: {text[:200]}"
        if response.status == 429:
            wait_s = _wait_of(response.headers)
            raise NodeLimited(told, _wait_in(text) if wait_s is None else wait_s)
        raise NodeUnavailable(told)


def result(reply: Reply, method: str, kind: type[T]) -> T | None:
    """The result of one reply of a batch.

    Raises:
        NodeUnavailable, NodeBehind, RangeTooLarge, NodeUnsuitable.
    """
    if reply.error:
        raise translated(reply.error, method)
    if kind is msgspec.Raw:
        return cast("T", reply.result)
    try:
        return msgspec.json.decode(reply.result, type=kind | None)
    except UNREADABLE as error:
        raise NodeUnavailable(f"{method}: unreadable reply: {error}") from error


def translated(error: RpcError, method: str) -> ListenerError:
    """Our error for a node's. Unknown errors count as passing: nodes word them freely."""
    text = f"{method}: {error.code} {error.message[:300]}"
    of_logs = method == "eth_getLogs"
    if error.code in NOT_OFFERED_CODES:
        return NodeUnsuitable(f"the node does not offer {text}")
    if error.is_rate_limit and (of_logs or not error.is_revert):
        return NodeLimited(text, _wait_in(error.text()))
    if of_logs and error.is_too_large:
        return RangeTooLarge(text)
    if of_logs and _TOO_SLOW.search(error.message):
        return NodeSlow(text)
    if _UNKNOWN_BLOCK.search(error.message):
        return NodeBehind(text)
    return NodeUnavailable(text)


def _wait_of(headers: Mapping[str, str]) -> float | None:
    """`Retry-After`, in seconds or as a date (RFC 9110, section 10.2.3)."""
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        return min(float(text), MAX_RETRY_AFTER_S)
    try:
        until, now = (parsedate_to_datetime(when) for when in (text, headers.get("Date", "")))
        return min(max((until - now).total_seconds(), 0.0), MAX_RETRY_AFTER_S)
    except (TypeError, ValueError):
        return None


def _wait_in(text: str) -> float | None:
    """The wait that a refusal names in its text."""
    found = _RETRY_IN.search(text[:MAX_REASON_BYTES])
    if not found:
        return None
    unit = {"ms": 0.001, "m": 60.0}.get(found[2].lower(), 1.0)
    return min(float(found[1]) * unit, MAX_RETRY_AFTER_S)

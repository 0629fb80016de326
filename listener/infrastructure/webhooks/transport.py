"""`Transport` over HTTP: one signed POST, to public addresses only, with an end to time and size.

The address is checked where a socket is made for it, after the name was resolved and for each connection: a
name that leads somewhere else a moment later leads nowhere.
"""

import asyncio
import email.utils
import errno
import socket
import time
from contextlib import suppress
from typing import Final

import aiohttp
from aiohttp.abc import AbstractCookieJar

from listener import __version__
from listener.application.addresses import is_public
from listener.application.webhooks import ENDPOINTS_MAX, Answer, Endpoint
from listener.domain.value_objects import Timestamp
from listener.infrastructure.webhooks.signature import sign

TOTAL_S: Final = 10.0
"""For a whole request: name, connection, TLS, body and the answer's head."""
DRAIN_S: Final = 1.0
"""For reading on after the head, so that the connection can be used again."""
RESPONSE_BYTES_MAX: Final = 16_384
"""Of an answer's body that are read; nobody looks at them."""
ERROR_CHARACTERS_MAX: Final = 200
RETRY_AFTER_S_MAX: Final = 86_400.0
KEEP_ALIVE_S: Final = 30.0
HEADERS: Final = {"Content-Type": "application/json", "User-Agent": f"0xpads-listener/{__version__}"}


class ForbiddenAddress(OSError):
    """An address that we do not connect to."""


def public_socket(info: tuple[int, int, int, str, tuple[str | int, ...]]) -> socket.socket:
    """A socket to connect to an address with.

    Raises:
        ForbiddenAddress: it is not a public one.
    """
    family, kind, protocol, _, address = info
    if not is_public(str(address[0])):
        raise ForbiddenAddress(errno.EACCES, f"{address[0]} is not a public address")
    return socket.socket(family, kind, protocol)


class HttpTransport:
    """See above. Redirects are not followed, cookies not kept, proxies of the environment not used.

    Args:
        private: addresses that are not public as well.
        total_s: for a whole request.
    """

    def __init__(self, *, private: bool, total_s: float = TOTAL_S) -> None:
        self._private = private
        self._total_s = total_s
        self._session: aiohttp.ClientSession | None = None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            jar: AbstractCookieJar = aiohttp.DummyCookieJar()
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=2 * ENDPOINTS_MAX,
                    use_dns_cache=False,
                    keepalive_timeout=KEEP_ALIVE_S,
                    socket_factory=None if self._private else public_socket,
                ),
                cookie_jar=jar,
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._session

    async def post(self, endpoint: Endpoint, message_id: str, body: bytes, now: Timestamp) -> Answer:
        """See `Transport.post`."""
        began = time.monotonic()
        status, error, retry_after_s = 0, "", 0.0
        try:
            async with asyncio.timeout(self._total_s):
                status, retry_after_s = await self._post(endpoint, message_id, body, now)
            error = "" if 200 <= status < 300 else _refusal(status)
        except TimeoutError:
            error = f"no answer within {self._total_s:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            error = _why(problem)
        return Answer(status, error, round((time.monotonic() - began) * 1000), retry_after_s)

    async def _post(
        self, endpoint: Endpoint, message_id: str, body: bytes, now: Timestamp
    ) -> tuple[int, float]:
        """Status, and the seconds after which we shall come again."""
        headers = HEADERS | sign(endpoint.signing(now), message_id, now // 1000, body)
        url = endpoint.url
        answer = await self._opened().post(url, data=body, headers=headers, allow_redirects=False)
        try:
            await _drain(answer)
            return answer.status, _retry_after_s(answer.headers.get("Retry-After", ""), now)
        finally:
            answer.close()

    async def close(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


async def _drain(answer: aiohttp.ClientResponse) -> None:
    """Read what is left of a short answer, so that its connection stays; the status has said all."""
    left = RESPONSE_BYTES_MAX
    with suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(DRAIN_S):
            while left > 0 and (piece := await answer.content.read(left)):
                left -= len(piece)


def _refusal(status: int) -> str:
    return f"HTTP {status}: redirects are not followed" if 300 <= status < 400 else f"HTTP {status}"


def _why(problem: Exception) -> str:
    said = " ".join(str(problem).split()) or type(problem).__name__
    return said[:ERROR_CHARACTERS_MAX]


def _retry_after_s(text: str, now: Timestamp) -> float:
    """`Retry-After`: seconds, or a date (RFC 9110, 10.2.3); 0: it says nothing."""
    if text.isascii() and text.isdecimal():
        return min(float(text[:9]), RETRY_AFTER_S_MAX)
    try:
        seconds = email.utils.parsedate_to_datetime(text).timestamp() - now / 1000
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), RETRY_AFTER_S_MAX)

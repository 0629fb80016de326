"""What stands before every request: size, key, scope, rate. Plain ASGI, as it runs each time."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qs

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Connection

from listener.infrastructure.gateway.keys import Scope
from listener.infrastructure.gateway.replies import error_reply, refusal
from listener.infrastructure.gateway.security import Refused, Security
from listener.infrastructure.gateway.writes import READING

BODY_MAX: Final = 65_536
"""Bytes of a request's body."""
QUERY_MAX: Final = 16_384
"""Bytes of a request's query."""
FIELDS_MAX: Final = 64
"""Fields of a query in which a key is looked for."""
OPEN: Final = ("/health", "/ready", "/docs", "/openapi.json")
"""Paths that need no key: probes, and what tells how to get on. `/docs` stands for what is below it, too."""
CONFIDED: Final = ("/api/v1/webhooks",)
"""Paths that are as good as changes even where they are only read: URLs of others are among the answers."""
ADMIN: Final = ("/metrics", *CONFIDED)
OWN_DOOR: Final = ("/socket.io", "/ws")
"""Paths whose connections ask for their key themselves."""
KEY_IN_QUERY: Final = ("/udf", "/dexscreener", "/geckoterminal")
"""Paths whose clients cannot set headers: there `?key=` counts as well."""

CALLER: Final = "listener.caller"
"""Where the `Caller` is found in the connection's scope."""

CLOSE: Final = {"Connection": "close"}


class Guard:
    """Lets requests through, or answers them itself."""

    def __init__(self, app: ASGIApp, security: Security) -> None:
        self._app = app
        self._security = security

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if refusal_of_size := oversized(scope, headers):
            await refusal_of_size(scope, receive, send)
            return
        try:
            if not under(scope["path"], OWN_DOOR):
                reads = scope["method"] in READING
                scope[CALLER] = self._security.admit(
                    key_of(scope, headers), address_of(scope), needed(scope["path"], reads=reads)
                )
                if not reads or under(scope["path"], CONFIDED):
                    self._security.admit_change(headers)
        except Refused as refused:
            await refusal(refused)(scope, receive, send)
            return
        await self._app(scope, Counted(receive), send)


class Counted:
    """A request's body, up to so many bytes; a longer one ends as if its sender had gone away."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._left = BODY_MAX

    async def __call__(self) -> Message:
        """See ASGI."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                return {"type": "http.disconnect"}
        return message


def under(path: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a path is one of these or below one."""
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)


def needed(path: str, *, reads: bool) -> Scope | None:
    """The scope that a path needs, to be read or changed; None: none."""
    if under(path, OPEN) and reads:
        return None
    return Scope.READ if reads and not under(path, ADMIN) else Scope.ADMIN


def oversized(scope: Connection, headers: Mapping[bytes, bytes]) -> Response | None:
    """The answer to a query, or a body by what its header says, beyond the bounds; None: it is within."""
    if len(scope["query_string"]) > QUERY_MAX:
        return error_reply(414, "query_too_long", f"a query has at most {QUERY_MAX} bytes", CLOSE)
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and len(length) <= len(str(BODY_MAX)) and int(length) <= BODY_MAX:
        return None
    return error_reply(413, "payload_too_large", f"a body has at most {BODY_MAX} bytes", CLOSE)


def key_of(scope: Connection, headers: Mapping[bytes, bytes]) -> str | None:
    """The key that a request shows: `Authorization: Bearer`, `X-API-Key` or, where allowed, `?key=`."""
    kind, _, token = headers.get(b"authorization", b"").partition(b" ")
    if kind.lower() == b"bearer" and token:
        return token.strip().decode("latin-1")
    if shown := headers.get(b"x-api-key"):
        return shown.strip().decode("latin-1")
    if under(scope["path"], KEY_IN_QUERY):
        return _queried(scope["query_string"].decode("latin-1"))
    return None


def _queried(query: str) -> str | None:
    try:
        return parse_qs(query, max_num_fields=FIELDS_MAX).get("key", [None])[0]
    except ValueError:
        return None


def address_of(scope: Connection) -> str:
    """Where a request comes from."""
    client = scope.get("client")
    return str(client[0]) if client else ""

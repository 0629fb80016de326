"""Keys, scopes, rates, and where the gateway may listen."""

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import pytest

from listener.application.errors import InvalidConfiguration
from listener.config.gateway import GatewaySettings, check_exposure
from listener.infrastructure.gateway.guard import BODY_MAX, QUERY_MAX, Guard
from listener.infrastructure.gateway.keys import KEY_CHARACTERS_MAX, ApiKey, Scope, digest_of, make_key
from listener.infrastructure.gateway.security import Limiter, Rate, Refused, Security, network_of
from listener.infrastructure.gateway.writes import is_loopback

HERE = "203.0.113.7"
READ = frozenset({Scope.READ})
ONE = Rate(1, 1)
"""The second request within a second is one too many."""


def refused(security: Security, key: str | None, scope: Scope | None = Scope.READ) -> tuple[int, str]:
    """Status and word of a refusal."""
    with pytest.raises(Refused) as raised:
        security.admit(key, HERE, scope)
    return raised.value.status, raised.value.code


def test_a_key_is_kept_as_a_digest() -> None:
    """What is kept opens for the key alone, survives being written down, and does not contain the key."""
    key, kept = make_key(READ, "charts")
    again = ApiKey.parse(str(kept))
    assert again == kept
    assert again.opens(key)
    assert not again.opens(key + "x")
    assert not again.opens(key[:-1])
    assert key.partition(".")[2] not in str(kept)
    assert kept.digest == digest_of(key)


def test_keys_differ() -> None:
    """Each has a secret of its own, and an id of its own unless a name is given."""
    made = [make_key(READ) for _ in range(50)]
    assert len({key for key, _ in made}) == len({kept.id for _, kept in made}) == 50


@pytest.mark.parametrize("name", ["a b", "a:b", "a.b", "a,b", "é", "x" * 33])
def test_a_name_cannot_break_the_list(name: str) -> None:
    """Names go into a setting that has separators."""
    with pytest.raises(ValueError, match="name"):
        make_key(READ, name)


def test_without_keys_everybody_may_do_everything() -> None:
    """Keys are optional."""
    caller = Security().admit(None, HERE, Scope.ADMIN)
    assert caller.scopes == frozenset(Scope)
    assert not Security().needs_key


def test_with_keys_one_is_needed() -> None:
    """No key, a wrong one, a right id with a wrong secret and an endless one are all not known: 401."""
    key, kept = make_key(READ, "charts")
    security = Security([kept])
    assert security.needs_key
    assert security.admit(key, HERE, Scope.READ).key == "charts"
    for wrong in (None, "", "charts", "charts.", "other." + key, key[:-1], "charts." + "x" * 10_000):
        assert refused(security, wrong) == (401, "unauthorized")
    assert security.health_check()["refused"] == {"unauthorized": 7}


def test_an_endless_key_is_not_hashed() -> None:
    """A key's length is bounded before work is done for it; a longest one still works."""
    long = "a." + "x" * (KEY_CHARACTERS_MAX - 2)
    kept = ApiKey("a", READ, digest_of(long))
    assert Security([kept]).admit(long, HERE, Scope.READ).key == "a"
    longer = long + "x"
    assert refused(Security([kept._replace(digest=digest_of(longer))]), longer) == (401, "unauthorized")


def test_a_key_opens_its_scopes_only() -> None:
    """A known key without the scope is told so: 403, not 401."""
    key, kept = make_key(frozenset({Scope.READ, Scope.STREAM}))
    security = Security([kept])
    assert security.admit(key, HERE, Scope.STREAM).scopes == {Scope.READ, Scope.STREAM}
    assert refused(security, key, Scope.ADMIN) == (403, "forbidden")


def test_probes_need_no_key() -> None:
    """Where no scope is asked for, anybody may come, within the rate."""
    _, kept = make_key(READ)
    assert Security([kept]).admit(None, HERE, None).scopes == frozenset()


def test_a_rate_is_kept_per_key_and_per_address() -> None:
    """Who is over the rate waits; others do not, and a key's bucket is not its address's."""
    key, kept = make_key(READ, "one")
    other, also = make_key(READ, "two")
    security = Security([kept, also], per_address=ONE, per_key=ONE)
    security.admit(key, HERE, Scope.READ)
    with pytest.raises(Refused) as raised:
        security.admit(key, HERE, Scope.READ)
    assert (raised.value.status, raised.value.code) == (429, "too_many_requests")
    assert 0 < raised.value.retry_after_s <= 1
    security.admit(other, HERE, Scope.READ)
    security.admit(None, HERE, None)
    assert refused(security, None, None) == (429, "too_many_requests")
    security.admit(None, "203.0.113.8", None)


def test_guessing_is_slow() -> None:
    """Wrong keys count against the address, whatever ids they name; the right key is not held up by them."""
    key, kept = make_key(READ, "charts")
    security = Security([kept], per_address=Rate(1, 3), per_key=Rate(100, 100))
    said = [refused(security, f"charts.{number}")[0] for number in range(5)]
    assert said == [401, 401, 401, 429, 429]
    assert security.admit(key, HERE, Scope.READ).key == "charts"


def test_a_burst_is_allowed_and_not_more() -> None:
    """So many at once, then the rate."""
    limiter = Limiter(Rate(1, 20))
    assert [bool(limiter.wait_s("a")) for _ in range(22)] == [False] * 20 + [True] * 2


def test_no_rate_is_no_limit() -> None:
    """0 a second switches it off."""
    limiter = Limiter(Rate(0, 1))
    assert not any(limiter.wait_s("a") for _ in range(1_000))


def test_callers_are_not_remembered_for_ever() -> None:
    """A flood of addresses takes bounded memory: those seen longest ago are forgotten, others are not."""
    limiter = Limiter(ONE, callers_max=100)
    for number in range(5_000):
        assert limiter.wait_s(f"10.0.{number // 256}.{number % 256}") == 0
    assert limiter._throttled is not None
    backend = limiter._throttled.limiter._store._backend
    assert len(backend.get_client()) == len(backend.expire_info) == 100
    assert limiter.wait_s("10.0.19.135") > 0
    assert limiter.wait_s("10.0.0.0") == 0


def test_an_ipv6_customer_is_one_caller() -> None:
    """All 2^64 addresses of a network share a bucket; an IPv4 address in IPv6's clothes is itself."""
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:203.0.113.7") == network_of(HERE) == HERE
    assert network_of("fe80::1%eth0") == str(ipaddress.ip_network("fe80::/64"))
    assert network_of("unix") == "unix"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LocalHost"])
def test_loopback_is_always_open(host: str) -> None:
    """Only this host reaches it."""
    assert is_loopback(host)
    check_exposure(GatewaySettings(), host, "production")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "example.org", "localhost.example.org"])  # noqa: S104
def test_production_is_not_open_by_accident(host: str) -> None:
    """What others reach needs keys or the word that it is public; the refusal names both, and the others."""
    with pytest.raises(InvalidConfiguration) as raised:
        check_exposure(GatewaySettings(), host, "production")
    for name in ("GATEWAY_API_KEYS", "GATEWAY_PUBLIC=true", "GATEWAY_ENABLED=false"):
        assert name in str(raised.value)
    check_exposure(GatewaySettings(), host, "development")
    check_exposure(GatewaySettings(gateway_public=True), host, "production")
    check_exposure(GatewaySettings(gateway_api_keys=(make_key(READ)[1],)), host, "production")


class Asked:
    """A guard in front of an application that reads its body; what comes back."""

    def __init__(self, security: Security) -> None:
        self.guard = Guard(self._app, security)
        self.reached = False
        self.status = 0
        self.body_seen = b""
        self.left = False

    async def _app(
        self,
        _scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        _send: object,
    ) -> None:
        self.reached = True
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left = True
                return
            self.body_seen += message["body"]
            if not message["more_body"]:
                return

    async def ask(
        self,
        path: str,
        headers: dict[bytes, bytes] | None = None,
        query: bytes = b"",
        *bodies: bytes,
        method: str = "GET",
    ) -> int:
        """Status of a refusal; 0: it came through."""
        self.reached, self.status = False, 0
        parts = [
            {"type": "http.request", "body": body, "more_body": number + 1 < len(bodies)}
            for number, body in enumerate(bodies or (b"",))
        ]

        async def receive() -> MutableMapping[str, Any]:
            return parts.pop(0)

        async def send(message: MutableMapping[str, Any]) -> None:
            self.status = message.get("status", self.status)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query,
            "headers": list((headers or {}).items()),
            "client": (HERE, 1),
        }
        await self.guard(scope, receive, send)
        assert self.reached is (self.status == 0)
        return self.status


async def test_the_ways_to_show_a_key() -> None:
    """Two headers everywhere; the query only where clients cannot set headers, as it ends up in logs."""
    key, kept = make_key(READ, "charts")
    asked = Asked(Security([kept]))
    encoded = key.encode()
    assert await asked.ask("/api/v1/markets") == 401
    assert await asked.ask("/api/v1/markets", {b"authorization": b"Bearer " + encoded}) == 0
    assert await asked.ask("/api/v1/markets", {b"authorization": b"bearer " + encoded}) == 0
    assert await asked.ask("/api/v1/markets", {b"authorization": b"Basic " + encoded}) == 401
    assert await asked.ask("/api/v1/markets", {b"x-api-key": encoded}) == 0
    assert await asked.ask("/api/v1/markets", query=b"key=" + encoded) == 401
    assert await asked.ask("/udf/history", query=b"symbol=A&key=" + encoded) == 0
    assert await asked.ask("/dexscreener/events", query=b"fromBlock=1&key=" + encoded) == 0
    assert await asked.ask("/geckoterminal/pair", query=b"id=1&key=" + encoded) == 0
    assert await asked.ask("/udf/history", query=b"key=x&" * 200) == 401
    assert await asked.ask("/udfx", query=b"key=" + encoded) == 401


async def test_what_each_path_needs() -> None:
    """Probes and the description are open, figures are for operators, all else is for readers."""
    key, kept = make_key(READ)
    admin, also = make_key(frozenset({Scope.ADMIN}))
    asked = Asked(Security([kept, also]))
    for path in ("/health", "/ready", "/docs", "/docs/swagger-ui.css", "/openapi.json", "/ws", "/socket.io/"):
        assert await asked.ask(path) == 0, path
    for path in ("/", "/api/v1/markets", "/udf/config", "/metrics", "/healthx", "/anything"):
        assert await asked.ask(path) == 401, path
    assert await asked.ask("/metrics", {b"x-api-key": key.encode()}) == 403
    assert await asked.ask("/metrics", {b"x-api-key": admin.encode()}) == 0
    assert await asked.ask("/api/v1/markets", {b"x-api-key": admin.encode()}) == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "MADE-UP"])
async def test_who_may_change_something(method: str) -> None:
    """With keys: one with the scope `admin`, whatever the path. Without: only users of this host."""
    key, kept = make_key(READ)
    admin, also = make_key(frozenset({Scope.ADMIN}))
    asked = Asked(Security([kept, also], local=True))
    for path in ("/api/v1/alerts", "/docs", "/anything"):
        assert await asked.ask(path, method=method) == 401
        assert await asked.ask(path, {b"x-api-key": key.encode()}, method=method) == 403
        assert await asked.ask(path, {b"x-api-key": admin.encode()}, method=method) == 0
    assert await Asked(Security()).ask("/api/v1/alerts", method=method) == 403
    assert await Asked(Security(local=True)).ask("/api/v1/alerts", method=method) == 0
    assert await Asked(Security()).ask("/api/v1/alerts") == 0


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (b"https://evil.example.org", 403),
        (b"http://127.0.0.1.evil.example.org:8080", 403),
        (b"http://localhost@evil.example.org", 403),
        (b"null", 403),
        (b"http://[", 403),
        (b"http://127.0.0.1:8080", 0),
        (b"http://localhost:3000", 0),
        (b"http://[::1]:8080", 0),
    ],
)
async def test_no_page_of_another_host_changes_something(origin: bytes, status: int) -> None:
    """A browser on this host may be shown a page that asks us in its user's name."""
    asked = Asked(Security(local=True))
    assert await asked.ask("/api/v1/alerts", {b"origin": origin}, method="POST") == status
    assert await asked.ask("/api/v1/alerts", {b"origin": origin}) == 0


@pytest.mark.parametrize("length", [str(BODY_MAX + 1), "10000000", "-1", "1e3", "", "9" * 5_000])
async def test_a_large_body_is_refused_by_its_length(length: str) -> None:
    """Nothing of it is read."""
    assert await Asked(Security()).ask("/api/v1/markets", {b"content-length": length.encode()}) == 413


async def test_a_body_that_lies_about_its_length_is_cut() -> None:
    """What is sent in pieces, without a length, ends for the application as if the sender had left."""
    asked = Asked(Security())
    piece = b"x" * (BODY_MAX // 2)
    assert await asked.ask("/api/v1/markets", None, b"", piece, piece) == 0
    assert (len(asked.body_seen), asked.left) == (BODY_MAX, False)
    asked = Asked(Security())
    assert await asked.ask("/api/v1/markets", None, b"", piece, piece, b"x", b"x") == 0
    assert (len(asked.body_seen), asked.left) == (BODY_MAX, True)


async def test_a_long_query_is_refused() -> None:
    """It would be parsed for nothing."""
    assert await Asked(Security()).ask("/api/v1/markets", query=b"q" * QUERY_MAX) == 0
    assert await Asked(Security()).ask("/api/v1/markets", query=b"q" * (QUERY_MAX + 1)) == 414

"""What a stranger may try: refused in a word, and nobody else notices."""

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from listener.infrastructure.gateway.keys import Scope, make_key
from listener.infrastructure.gateway.server import HEAD_MAX, PIPELINED_MAX
from tests.fakes.build import CHAIN_ID, FACTORY
from tests.fakes.servers import valkey_server
from tests.gateway.conftest import Data
from tests.gateway.serving import KEYS, Served, write_markets

KEY, KEPT = make_key(frozenset({Scope.READ}), "charts")
ADMIN, ADMIN_KEPT = make_key(frozenset({Scope.ADMIN}), "grafana")


@pytest.fixture(scope="module")
def guarded(data: Data) -> Iterator[Served]:
    """A gateway with two keys, and few requests a second."""
    served = Served(
        data.port,
        GATEWAY_API_KEYS=f"{KEPT},{ADMIN_KEPT}",
        GATEWAY_KEY_RATE_PER_S="10",
        GATEWAY_KEY_RATE_BURST="20",
        GATEWAY_RATE_PER_S="1000",
        GATEWAY_RATE_BURST="1000",
    )
    try:
        yield served
    finally:
        served.child.stop()


def test_keys(guarded: Served) -> None:
    """No key and a wrong one are 401, one without the scope is 403; probes and the description need none."""
    for answer in (
        guarded.ask("/api/v1/config"),
        guarded.ask("/api/v1/config", Authorization="Bearer charts.wrong"),
        guarded.ask("/api/v1/config", X_API_Key=KEY[:-1]),
        guarded.ask("/metrics"),
    ):
        assert (answer.status, answer.error) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert guarded.ask("/metrics", X_API_Key=ADMIN).status == 200
    answer = guarded.ask("/metrics", X_API_Key=KEY)
    assert (answer.status, answer.error) == (403, "forbidden")
    for path in ("/health", "/docs", "/openapi.json"):
        assert guarded.ask(path).status == 200
    answer = guarded.ask("/api/v1/config", Authorization=f"Bearer {KEY}")
    assert answer.status == 200


def test_answers_for_a_key_are_not_for_shared_caches(guarded: Served) -> None:
    """A proxy must not give them to those who have none."""
    answer = guarded.ask("/api/v1/config", Authorization=f"Bearer {KEY}")
    assert answer.headers["cache-control"].startswith("private")


def test_a_rate(guarded: Served) -> None:
    """Over it 429 says when to come again, and then it goes on; another key is not held up."""
    answers = [guarded.ask("/api/v1/config", X_API_Key=KEY) for _ in range(40)]
    over = [answer for answer in answers if answer.status != 200]
    assert over
    assert {(answer.status, answer.error) for answer in over} == {(429, "too_many_requests")}
    assert {answer.headers["retry-after"] for answer in over} == {"1"}
    assert guarded.ask("/metrics", X_API_Key=ADMIN).status == 200
    time.sleep(1)
    assert guarded.ask("/api/v1/config", X_API_Key=KEY).status == 200


@pytest.mark.parametrize("trusted", [False, True])
def test_whose_word_on_addresses_counts(data: Data, trusted: bool) -> None:
    """Only a proxy that was named may say for whom it asks; a stranger's word opens no new bucket."""
    proxies = {"GATEWAY_TRUSTED_PROXIES": "127.0.0.1,10.0.0.0/8"} if trusted else {}
    served = Served(data.port, GATEWAY_RATE_PER_S="1", GATEWAY_RATE_BURST="2", **proxies)
    try:
        said = [
            served.ask("/openapi.json", X_Forwarded_For=f"203.0.113.{number}").status for number in range(8)
        ]
        assert (429 in said) is not trusted
        assert 429 in [served.ask("/openapi.json", X_Forwarded_For="203.0.113.99").status for _ in range(8)]
    finally:
        served.child.stop()


def test_the_key_is_nowhere(guarded: Served) -> None:
    """Neither logs nor the description nor health tell it."""
    guarded.ask("/api/v1/config", X_API_Key=KEY)
    said = "\n".join(guarded.child.lines) + guarded.ask("/health").body.decode()
    assert KEY.partition(".")[2] not in said
    assert KEPT.digest not in said


@pytest.mark.parametrize("length", [True, False])
def test_ten_megabytes(gateway: Served, length: bool) -> None:
    """A large body is refused before it is read, with its length or without; the next request is answered."""
    body = b"x" * 10_000_000
    if length:
        answer = gateway.ask("/api/v1/markets", "POST", body)
        assert (answer.status, answer.error) == (413, "payload_too_large")
    else:
        raw = b"POST /api/v1/markets HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        said = talk(gateway, raw + b"989680\r\n" + body)
        assert said.startswith(b"HTTP/1.1 4")
    assert gateway.answers()


def talk(gateway: Served, data: bytes, wait_s: float = 2.0) -> bytes:
    """What comes back to raw bytes until the server hangs up or is silent."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=wait_s) as connection:
        heard = b""
        with suppress(OSError):
            connection.sendall(data)
        with suppress(OSError):
            while part := connection.recv(65_536):
                heard += part
        return heard


@pytest.mark.parametrize(
    "head",
    [
        b"GET /api/v1/markets HTTP/1.1\r\nX-Long: " + b"x" * 4 * HEAD_MAX,
        b"GET /api/v1/markets?q=" + b"x" * 4 * HEAD_MAX,
        b"GET /api/v1/markets HTTP/1.1\r\n" + b"X-Many: 1\r\n" * HEAD_MAX,
    ],
)
def test_an_endless_head(gateway: Served, head: bytes) -> None:
    """It is not kept until memory is full."""
    assert talk(gateway, head).startswith(b"HTTP/1.1 400")
    assert gateway.answers()


@pytest.mark.parametrize(
    "noise", [b"\x16\x03\x01\x02\x00", b"{}\n\n", b"GET / HTTP/9.9\r\n\r\n", b"\x00" * 100]
)
def test_noise(gateway: Served, noise: bytes) -> None:
    """Something else than HTTP is hung up on."""
    assert talk(gateway, noise).startswith(b"HTTP/1.1 400")
    assert gateway.answers()


def test_too_many_connections(data: Data) -> None:
    """Over the bound callers are told to come again; those inside are served, and it passes."""
    served = Served(data.port, GATEWAY_CONNECTIONS_MAX="20", GATEWAY_RATE_PER_S="0")
    try:
        idle = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(30)]
        assert served.ask("/health").status == 503
        for connection in idle:
            connection.close()
        deadline = time.monotonic() + 5
        while not served.answers():
            assert time.monotonic() < deadline
    finally:
        served.child.stop()


def memory_mb(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1_000


@pytest.mark.parametrize("requests", [PIPELINED_MAX, 4_000])
def test_who_never_reads_holds_up_nobody(gateway: Served, data: Data, requests: int) -> None:
    """Clients that ask on and on and read nothing: others are answered, and nothing piles up in memory."""
    path = f"/api/v1/markets/{data.markets[0]}/trades?limit=1000"
    request = f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode() * requests
    assert len(gateway.ask(path).body) > 10_000
    before = memory_mb(gateway.child.process.pid)
    deaf = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(20)]

    def send(connection: socket.socket) -> None:
        connection.settimeout(2)
        with suppress(OSError):
            connection.sendall(request)

    senders = [threading.Thread(target=send, args=(connection,)) for connection in deaf]
    try:
        for sender in senders:
            sender.start()
        for _ in range(20):
            assert gateway.ask(path).status == 200
        for sender in senders:
            sender.join()
        assert memory_mb(gateway.child.process.pid) - before < 60
    finally:
        for sender in senders:
            sender.join()
        for connection in deaf:
            connection.close()


async def test_a_user_who_may_only_read(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The gateway needs reading commands alone, its feed of changes included."""
    with valkey_server(tmp_path_factory.mktemp("reader")) as port, redis.Redis(port=port) as plain:
        markets = await write_markets(port)
        plain.acl_setuser(
            "reader", enabled=True, passwords=["+a-password"], keys=["*{31337}*"], categories=["+@read"]
        )
        url = f"redis://reader:a-password@127.0.0.1:{port}/0"
        served = Served(port, GATEWAY_RATE_PER_S="0", GATEWAY_REDIS_URL=url)
        try:
            deadline = time.monotonic() + 10
            while served.ask("/api/v1/markets").json["total"] < len(markets):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            plain.hset(KEYS.stats(markets[-1]), mapping={"quoteVolume": "1e30", "count": 1})
            head = plain.hgetall(KEYS.head)
            row = f"{int(head[b'epoch'])}-{int(head[b'seq']) + 1}"
            plain.xadd(KEYS.outbox, {"e": "market_data", "d": markets[-1]}, id=row)
            while served.ask("/api/v1/markets?sort=volume").json["items"][0]["s"] != markets[-1]:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
        finally:
            served.child.stop()
        assert "NOPERM" not in "\n".join(served.child.lines)


async def test_redis_goes_away(tmp_path_factory: pytest.TempPathFactory) -> None:
    """503 without saying why, `/ready` says it, and all is well when Redis is back."""
    with valkey_server(tmp_path_factory.mktemp("away")) as port:
        markets = await write_markets(port)
        served = Served(port, GATEWAY_RATE_PER_S="0", REDIS_TIMEOUT_MS="300")
        path = f"/api/v1/markets/{markets[0]}/candles?interval=1m"
        try:
            assert served.ask(path).status == 200
            with redis.Redis(port=port) as plain:
                plain.execute_command("CLIENT", "PAUSE", 2_500, "ALL")
            answer = served.ask(path)
            assert (answer.status, answer.error) == (503, "unavailable")
            assert answer.headers["retry-after"] == "1"
            assert served.ask("/ready").json["reasons"] == ["redis: StoreUnavailable"]
            assert served.ask("/health").status == 200
            deadline = time.monotonic() + 10
            while served.ask(path).status != 200:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
        finally:
            served.child.stop()


def test_data_that_cannot_be_read(data: Data) -> None:
    """Stored JSON that is none is the operator's trouble: the reason is in the log alone."""
    served = Served(data.port, GATEWAY_RATE_PER_S="0")
    key = KEYS.candles("0xbroken", "1m")
    try:
        with redis.Redis(port=data.port) as plain:
            plain.zadd(key, {"secret-text": 60_000})
            answer = served.ask("/api/v1/markets/0xbroken/candles?interval=1m&format=ccxt")
            plain.delete(key)
        assert (answer.status, answer.error) == (503, "unusable")
        assert b"secret" not in answer.body
        assert served.answers()
    finally:
        served.child.stop()
    assert any("0xbroken" in line for line in served.child.lines)


def test_production_is_not_public_by_accident(data: Data) -> None:
    """`listener serve` on a public address in production ends at once, with exit code 2 and both names."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "ENVIRONMENT": "production",
        "BLOCKCHAIN_HTTP_URL": "http://127.0.0.1:1",
        "REDIS_URL": f"redis://127.0.0.1:{data.port}/0",
        "CHAIN_ID": str(CHAIN_ID),
        "BONDING_CURVE_FACTORY_ADDRESS": FACTORY,
        "WEBSOCKET_HOST": "0.0.0.0",  # noqa: S104 - what must be refused
        "WEBSOCKET_PORT": "0",
    }
    command = [sys.executable, "-c", "from listener.cli import main; main()", "serve"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert "GATEWAY_API_KEYS" in ended.stdout
    assert "GATEWAY_PUBLIC=true" in ended.stdout

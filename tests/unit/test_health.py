"""Whether the service is alive and ready, and at which port it says so."""

import asyncio
import errno
import random
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout
from structlog.testing import capture_logs

from listener.infrastructure.observability.health import PORTS_TRIED, Health, HealthServer
from listener.infrastructure.observability.logs import SecretMask
from listener.infrastructure.observability.observer import LogObserver
from listener.infrastructure.observability.progress import ProgressDisplay

HOST = "127.0.0.1"


def following(**changes: Any) -> Health:
    """A service that follows the head."""
    health = Health.expecting("node", "backend")
    health.troubles.clear()
    health.synced, health.block, health.leads = True, 7, True
    for name, value in changes.items():
        setattr(health, name, value)
    return health


def test_a_part_that_has_not_spoken_is_not_ready() -> None:
    """At the start nothing is known: all that is expected is a reason to wait."""
    health = Health.expecting("node", "backend")
    assert health.reasons() == ["node: starting", "backend: starting"]
    assert (health.role, health.degraded()) == ("starting", [])


def test_a_service_that_follows_is_ready() -> None:
    """Nothing is missing, so nothing is said."""
    assert following().reasons() == []
    assert following().degraded() == []


@pytest.mark.parametrize("synced", [None, False])
def test_catching_up_is_not_ready(*, synced: bool | None) -> None:
    """Before the tip is reached readers see the past; the block says how far it is."""
    assert following(synced=synced).reasons() == ["catching up, at block 7"]


def test_troubles_say_more_than_catching_up() -> None:
    """Where something fails, that is the reason; being behind follows from it."""
    assert following(synced=False, troubles={"redis": "no connection"}).reasons() == ["redis: no connection"]


@pytest.mark.parametrize("name", ["heads", "audit", "endpoint one.example.org"])
def test_what_is_dispensable_degrades(name: str) -> None:
    """Without a subscription, a second look or one of several endpoints the chain is still followed."""
    health = following(troubles={name: "away"})
    assert health.reasons() == []
    assert health.degraded() == [name]


def test_what_is_not_dispensable_does_not_degrade() -> None:
    """What keeps the service from its work is a reason, not a blemish."""
    health = following(troubles={"node": "away", "endpoint b": "away", "audit": "away"})
    assert health.reasons() == ["node: away"]
    assert health.degraded() == ["audit", "endpoint b"]


def test_a_stalled_chain_degrades() -> None:
    """The service does all it can: that no block comes is for people to see."""
    health = following(stalled="no block for 130 s, the node's newest is 7")
    assert health.reasons() == []
    assert health.degraded() == ["chain: no block for 130 s, the node's newest is 7"]


@pytest.mark.parametrize(("leads", "role"), [(None, "starting"), (True, "leader"), (False, "standby")])
def test_roles(leads: bool | None, role: str) -> None:
    """An instance works, stands by, or has not heard yet."""
    assert following(leads=leads).role == role


def test_who_stands_by_is_not_ready() -> None:
    """Whatever it remembers of the time when it led: another instance answers for the data now."""
    health = following(leads=False, troubles={"node": "starting"})
    assert health.reasons() == ["standing by: another instance leads"]


@asynccontextmanager
async def answering(health: Health, port: int = 0) -> AsyncIterator[int]:
    """A health server; its port."""
    server = HealthServer(health, HOST, port)
    try:
        yield await server.start()
    finally:
        await server.close()


async def get(port: int, path: str) -> tuple[int, Any]:
    """Status and body."""
    async with ClientSession() as session, session.get(f"http://{HOST}:{port}{path}") as response:
        return response.status, await response.json()


async def test_ready_over_http() -> None:
    """200 while it follows the head, 503 with the reasons otherwise, the role in both cases."""
    health = following(stalled="still")
    async with answering(health) as port:
        body = {"ready": True, "reasons": [], "degraded": ["chain: still"], "role": "leader", "block": 7}
        assert await get(port, "/ready") == (200, body)
        health.leads = False
        status, said = await get(port, "/ready")
        assert (status, said["ready"], said["role"]) == (503, False, "standby")
        assert said["reasons"] == ["standing by: another instance leads"]


async def test_alive_over_http() -> None:
    """Alive in every role and trouble; with what was counted, and each breaker's state."""
    health = following(leads=False, audited=5, troubles={"node": "away"})
    health.rejected["stranger"] = 3
    health.differences["repaired"] = 1
    health.breakers = lambda: {"redis": "open"}
    async with answering(health) as port:
        assert await get(port, "/health") == (
            200,
            {
                "status": "alive",
                "role": "standby",
                "block": 7,
                "rejected": {"stranger": 3},
                "audited": 5,
                "differences": {"repaired": 1},
                "breakers": {"redis": "open"},
            },
        )


class Taken:
    """Neighbouring ports, held by somebody else.

    Attributes:
        first: the lowest of them.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._sockets: dict[int, socket.socket] = {}
        chance = random.Random()
        while len(self._sockets) < PORTS_TRIED:
            self.close()
            self.first = chance.randrange(20_000, 32_000)
            try:
                for port in range(self.first, self.first + PORTS_TRIED):
                    self._sockets[port] = socket.create_server((HOST, port))
            except OSError:
                continue
        stack.callback(self.close)

    def free(self, port: int) -> None:
        """Give one up."""
        self._sockets.pop(port).close()

    def close(self) -> None:
        """Give all up."""
        for port in list(self._sockets):
            self.free(port)


@pytest.fixture
def taken() -> Iterator[Taken]:
    """As many ports in a row as are tried, all in use."""
    with ExitStack() as stack:
        yield Taken(stack)


@pytest.mark.parametrize("at", [0, 1, 5, PORTS_TRIED - 1])
async def test_the_next_free_port_is_taken(taken: Taken, at: int) -> None:
    """Several instances on one host work without settings of their own, each at one of the next ports."""
    taken.free(taken.first + at)
    async with answering(following(), taken.first) as port:
        assert port == taken.first + at
        assert (await get(port, "/ready"))[0] == 200


async def test_instances_take_ports_one_after_the_other(taken: Taken) -> None:
    """The same setting for all of them gives each a port of its own."""
    first = taken.first
    taken.close()
    async with answering(following(), first) as one, answering(following(), first) as two:
        assert (one, two) == (first, first + 1)


async def test_ports_are_not_searched_for_ever(taken: Taken) -> None:
    """Beyond the next few it is an error; afterwards nothing is held."""
    server = HealthServer(following(), HOST, taken.first)
    with pytest.raises(OSError, match="in use") as raised:
        await server.start()
    assert raised.value.errno == errno.EADDRINUSE
    await server.close()


async def test_the_search_ends_with_the_last_port() -> None:
    """There is no port above 65535 to try."""
    with ExitStack() as stack:
        with suppress(OSError):
            stack.enter_context(socket.create_server((HOST, 65_535)))
        server = HealthServer(following(), HOST, 65_535)
        with pytest.raises(OSError, match="in use"):
            await server.start()
        await server.close()


async def test_an_address_that_is_not_ours_is_an_error_at_once() -> None:
    """Another port would not help."""
    server = HealthServer(following(), "192.0.2.1", 20_000)
    with pytest.raises(OSError, match=r"192\.0\.2\.1") as raised:
        await server.start()
    assert raised.value.errno == errno.EADDRNOTAVAIL
    await server.close()


async def test_while_the_gateway_is_away() -> None:
    """What it would answer is told to come again, and the connection ends; without one it is nowhere."""
    server = HealthServer(following(), HOST, 0)
    port = await server.start()
    url = f"http://{HOST}:{port}/api/v1/markets"
    try:
        async with ClientSession() as session:
            async with session.get(url) as response:
                assert response.status == 404
            internal = await server.start_internal()
            for address in (url, f"{internal}/api/v1/markets"):
                async with session.get(address) as response:
                    assert (response.status, response.headers["Retry-After"]) == (503, "1")
                    assert (await response.json())["error"]["code"] == "unavailable"
                    assert response.headers["Connection"] == "close"
            await server.leave_public()
            with pytest.raises(TimeoutError):
                await session.get(url, timeout=ClientTimeout(0.3))
            async with session.get(f"{internal}/ready") as response:
                assert response.status == 200
            await server.answer_public()
            async with session.get(url) as response:
                assert response.status == 503
    finally:
        await server.close()


@pytest.mark.parametrize("rounds", range(6))
async def test_who_leaves_the_port_answers_what_it_accepted(rounds: int) -> None:
    """Wherever in its way a connection is then: it is answered now, or by who comes next."""
    server = HealthServer(following(), HOST, 0)
    port = await server.start()
    await server.start_internal()
    loop = asyncio.get_running_loop()
    try:
        with socket.create_connection((HOST, port)) as client:
            client.settimeout(0)
            client.send(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n")
            for _ in range(rounds):
                await asyncio.sleep(0)
            await server.leave_public()
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    assert (await loop.sock_recv(client, 12)).endswith(b"200")
                    return
            await server.answer_public()
            async with asyncio.timeout(5):
                assert (await loop.sock_recv(client, 12)).endswith(b"200")
    finally:
        await server.close()


async def test_a_closed_server_gives_its_port_back() -> None:
    """The next instance can listen there at once."""
    async with answering(following()) as port:
        pass
    async with answering(following(), port) as again:
        assert again == port


def test_blocks_that_the_audit_missed_are_told_now_and_then() -> None:
    """A chain that is faster than its audit does not fill the log; the count is exact."""
    health = Health()
    observer = LogObserver(health, ProgressDisplay(), SecretMask(()))
    with capture_logs() as logs:
        for number in range(1, 251):
            observer.audit_missed(number, number)
        observer.audit_missed(251, 260)
    assert health.differences["missed"] == 260
    assert [line["total"] for line in logs] == [1, 100, 200]

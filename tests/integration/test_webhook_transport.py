"""The way to endpoints, against servers that fail, stall, redirect, answer slowly, endlessly or nonsense."""

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest

from listener.application.webhooks import Answer, Secret
from listener.infrastructure.webhooks import transport as module
from listener.infrastructure.webhooks.transport import RESPONSE_BYTES_MAX, HttpTransport
from tests.fakes.receiver import (
    Receiver,
    Stall,
    answer,
    cut,
    endless,
    endless_head,
    hang_up,
    noise,
    receiving,
    trickle,
)
from tests.fakes.webhooks import SECRET, endpoint

NOW: Final = 1_800_000_000_000
TOTAL_S: Final = 1.0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A server."""
    with receiving() as server:
        yield server


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    """One that may reach this host, and is impatient."""
    way = HttpTransport(private=True, total_s=TOTAL_S)
    yield way
    await way.close()


async def post(way: HttpTransport, url: str, body: bytes = b'{"event":"alert"}') -> Answer:
    """One request, within its time."""
    began = time.monotonic()
    answered = await way.post(endpoint()._replace(url=url), "7-1-1-1", body, NOW)
    assert time.monotonic() - began < TOTAL_S + 1
    return answered


async def test_what_arrives(receiver: Receiver, transport: HttpTransport) -> None:
    """A POST of JSON with the three headers of Standard Webhooks, signed by every secret that is valid."""
    other = "whsec_b3RoZXI="
    both = endpoint()._replace(url=receiver.url, secrets=(Secret(SECRET), Secret(other, NOW)))
    await transport.post(both, "7-1-1-1", b'{"event":"alert"}', NOW)
    await transport.post(both, "7-1-2-2", b'{"event":"alert"}', NOW + 1)
    first, second = receiver.requests
    assert (first.id, first.body, first.path) == ("7-1-1-1", b'{"event":"alert"}', "/hooks")
    assert first.headers["content-type"] == "application/json"
    assert first.headers["user-agent"].startswith("0xpads-listener/")
    assert first.headers["webhook-timestamp"] == str(NOW // 1000)
    assert receiver.verified(SECRET, NOW / 1000)
    assert len(first.headers["webhook-signature"].split()) == 2
    assert len(second.headers["webhook-signature"].split()) == 1, "its time is over"


@pytest.mark.parametrize(
    ("behave", "status", "error"),
    [
        (answer(200, b"x" * 100), 200, ""),
        (answer(202), 202, ""),
        (answer(200, b"x" * (RESPONSE_BYTES_MAX * 4)), 200, ""),
        (answer(200, b"not gzip", Content_Encoding="gzip"), 200, ""),
        (cut, 200, ""),
        (answer(500, b"x" * 100_000), 500, "HTTP 500"),
        (answer(404), 404, "HTTP 404"),
        (answer(410), 410, "HTTP 410"),
        (answer(304), 304, "redirects are not followed"),
        (Stall(), 0, "no answer within 1 s"),
        (trickle, 0, "no answer within 1 s"),
        (endless_head, 0, "too long|Too many|large|[Hh]eader"),
        (hang_up, 0, "disconnected"),
        (noise, 0, "."),
    ],
)
async def test_what_comes_of_it(
    receiver: Receiver, transport: HttpTransport, behave: Any, status: int, error: str
) -> None:
    """The status decides, once it is there; everything else ends in time, is a failure, and says why."""
    receiver.behave = behave
    answered = await post(transport, receiver.url)
    if isinstance(behave, Stall):
        behave.over.set()
    assert answered.status == status
    assert re.fullmatch(f".*({error}).*" if error else "", answered.error), answered.error
    receiver.behave = answer(204)
    assert (await post(transport, receiver.url)).status == 204, "the next one is not harmed"


async def test_an_endless_answer(receiver: Receiver, transport: HttpTransport) -> None:
    """It was taken; no more than a little of the rest is read, and the connection is given up."""
    receiver.behave = endless
    answered = await post(transport, receiver.url)
    assert (answered.status, answered.error) == (200, "")
    assert answered.ms < 900


async def test_redirects_are_not_followed(receiver: Receiver, transport: HttpTransport) -> None:
    """Wherever they lead: the message would be another's, and the address nobody has checked."""
    with receiving() as elsewhere:
        for status in (301, 302, 303, 307, 308):
            receiver.behave = answer(status, Location=elsewhere.url)
            answered = await post(transport, receiver.url)
            assert (answered.status, answered.error) == (
                status,
                f"HTTP {status}: redirects are not followed",
            )
        assert elsewhere.requests == []


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("7", 7), ("0", 0), ("-5", 0), ("soon", 0), ("9" * 40, 86_400), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)],
)
async def test_when_to_come_again(
    receiver: Receiver, transport: HttpTransport, said: str, seconds: float
) -> None:
    """`Retry-After`, in seconds or as a date; nonsense counts as nothing."""
    receiver.behave = answer(429, Retry_After=said)
    assert (await post(transport, receiver.url)).retry_after_s == seconds


async def test_connections_are_used_again(receiver: Receiver, transport: HttpTransport) -> None:
    """A message does not pay for a connection of its own."""
    for _ in range(20):
        assert (await post(transport, receiver.url)).status == 204
    assert len({request.peer for request in receiver.requests}) == 1


async def test_nobody_there(transport: HttpTransport) -> None:
    """Refused, unknown, and not TLS: each is an answer that says so."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert "Connect" in (await post(transport, f"http://127.0.0.1:{port}/")).error
    assert (await post(transport, "http://nowhere.invalid/")).error


async def test_certificates_are_checked(receiver: Receiver, transport: HttpTransport) -> None:
    """A server that does not speak TLS, or has no certificate that we trust, gets nothing."""
    answered = await post(transport, receiver.url.replace("http://", "https://"))
    assert answered.status == 0
    assert answered.error
    assert receiver.requests == []


@pytest.fixture
async def careful() -> AsyncIterator[HttpTransport]:
    """One that goes to public addresses only."""
    way = HttpTransport(private=False, total_s=TOTAL_S)
    yield way
    await way.close()


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "0", "[::1]", "[::ffff:127.0.0.1]"],
)
async def test_this_host_is_not_reached(receiver: Receiver, careful: HttpTransport, host: str) -> None:
    """In whichever notation it is written, and by whichever name it goes."""
    answered = await post(careful, f"http://{host}:{receiver.port}/hooks")
    assert answered.status == 0
    assert answered.error
    assert receiver.requests == []


async def test_a_name_that_changes_its_mind(
    receiver: Receiver, careful: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Public when it is asked for first, ours when it is connected to: what is checked is the connection."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: str, port: int, *rest: Any, **options: Any) -> Any:
        if host != "evil.example.org":
            return real(host, port, *rest, **options)
        asked.append(host)
        address = "127.0.0.1" if len(asked) > 1 else "192.0.2.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    for _ in range(3):
        answered = await post(careful, f"http://evil.example.org:{receiver.port}/hooks")
        assert "is not a public address" in answered.error
    assert len(asked) == 3, "a name is asked for with each connection"
    assert receiver.requests == []


async def test_a_connection_that_is_kept_was_checked(
    receiver: Receiver, careful: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the check lets one through, it is made to the very address that was checked."""
    seen: list[str] = []

    def allowed(address: str) -> bool:
        seen.append(address)
        return True

    monkeypatch.setattr(module, "is_public", allowed)
    for _ in range(3):
        assert (await post(careful, receiver.url)).status == 204
    assert seen == ["127.0.0.1"]


async def test_a_caller_that_is_stopped(receiver: Receiver, transport: HttpTransport) -> None:
    """Cancelled in the middle of a request, it ends at once, and the next request is not harmed."""
    receiver.behave = stalled = Stall()
    task = asyncio.create_task(post(transport, receiver.url))
    while not receiver.requests:  # noqa: ASYNC110 - of a thread
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stalled.over.set()
    receiver.behave = answer(204)
    assert (await post(transport, receiver.url)).status == 204

"""The live sockets as clients see them: a real server, a real Valkey, real clients of both transports."""

import asyncio
import socket as sockets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Final

import aiohttp
import orjson
import pytest
import socketio
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from listener.infrastructure.gateway.clients import ClientLimits
from listener.infrastructure.gateway.hub import HubLimits
from listener.infrastructure.gateway.keys import ApiKey, Scope, make_key
from listener.infrastructure.gateway.security import Rate, Security
from listener.infrastructure.redis.keys import Keys
from tests.fakes.build import CHAIN_ID, created, swap, token
from tests.fakes.gateway import Running, gateway
from tests.fakes.servers import valkey_server
from tests.fakes.socket_readers import BOUND_S, PlainReader, Reader, SocketIoReader
from tests.fakes.socket_readers import reader as reader_of
from tests.ports.sides import Side, plain

KEYS: Final = Keys(CHAIN_ID)
TRADES: Final = f"trades:{token(0)}"
CANDLES: Final = f"candles:{token(0)}:1m"
STATS: Final = f"stats:{token(0)}"
ROOMS: Final = (TRADES, CANDLES, STATS, "markets")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:websockets", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[int]:
    """Port of a Valkey."""
    with valkey_server(tmp_path_factory.mktemp("valkey")) as port:
        yield port  # type: ignore[misc]


@pytest.fixture
async def side(port: int) -> AsyncIterator[Side]:
    """A stream with two markets."""
    admin = plain(port)
    await admin.flushdb()
    side = Side(port, admin)
    await side.prepare()
    await admin.hset(KEYS.settings, "setting:OHLCV_INTERVALS", "1m,5m,1d")
    yield side
    await side.database.close()
    await admin.aclose()


@asynccontextmanager
async def serving(side: Side, **options: Any) -> AsyncIterator[Running]:
    """The gateway over that stream."""
    port = side.admin.connection_pool.connection_kwargs["port"]
    async with gateway(f"redis://127.0.0.1:{port}/0", CHAIN_ID, **options) as running:
        yield running


async def trade(side: Side, blocks: int = 1) -> None:
    """Commit so many blocks with three trades each."""
    for _ in range(blocks):
        side.writer.chain.mine(swap(0), swap(1), swap(0, 7 * 10**17), after_ms=20_000)
    await side.writer.follow()


async def soon(check: Callable[[], bool]) -> None:
    """Wait until something is so that nobody tells of."""
    async with asyncio.timeout(BOUND_S):
        while not check():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


def reader(running: Running, kind: str = "plain", **options: Any) -> AbstractAsyncContextManager[Reader]:
    """A client."""
    return reader_of(running.port, kind, **options)


async def equal(side: Side, who: Reader) -> None:
    """Wait until a client knows what Redis holds of its trades, candles and figures."""
    trades = [orjson.loads(text) for text in await side.admin.lrange(KEYS.trades(token(0)), 0, -1)]
    candles = [orjson.loads(text) for text in await side.admin.zrange(KEYS.candles(token(0), "1m"), 0, -1)]
    figures = await side.admin.hgetall(KEYS.stats(token(0)))

    def known() -> bool:
        if any(room not in who.mirrors for room in (TRADES, CANDLES, STATS)):
            return False
        newest = sorted(who.mirrors[TRADES].items.values(), key=lambda t: (t["b"], t["li"]), reverse=True)
        items = who.mirrors[STATS].items.get("", {})
        return (
            newest[: len(trades)] == trades
            and list(who.mirrors[CANDLES].items.values()) == candles
            and {n: str(v) for n, v in items.items()} == {n.decode(): v.decode() for n, v in figures.items()}
        )

    await who.until(known)


@pytest.mark.parametrize("kind", ["plain", "websocket", "polling"])
async def test_snapshot_then_changes(side: Side, kind: str) -> None:
    """A client gets a snapshot of each room, then what changes, reorgs too, and ends equal to Redis."""
    async with serving(side) as running, reader(running, kind) as who:
        for room in ROOMS:
            await who.ask("subscribe", room=room)
        await equal(side, who)
        await trade(side, 3)
        await equal(side, who)
        side.writer.chain.fork(2)
        await side.writer.roll_back(side.writer.chain.tip.number)
        side.writer.chain.mine(created(2), swap(0, 3 * 10**17))
        await side.writer.follow()
        await equal(side, who)
        await who.until(lambda: token(2) in who.mirrors["markets"].items)
        assert who.mirrors[TRADES].reorgs == 1
        assert {mirror.snapshots for mirror in who.mirrors.values()} == {1}
        if isinstance(who, SocketIoReader):
            assert who.answers == [{"ok": True}] * len(ROOMS)


@pytest.mark.parametrize("kind", ["plain", "websocket"])
async def test_coming_back(side: Side, kind: str) -> None:
    """Who comes back with a position gets what followed, and no snapshot, from memory and from the outbox."""
    for linger_s in (60.0, 0.0):
        async with serving(side, limits=HubLimits(coalesce_s=0.02, linger_s=linger_s)) as running:
            async with reader(running, kind) as who:
                for room in ROOMS[:3]:
                    await who.ask("subscribe", room=room)
                await equal(side, who)
                known = who.mirrors
            await trade(side, 2)
            if not linger_s:
                running.hub._look_after()
                assert running.hub.rooms == 0
            async with reader(running, kind) as who:
                who.mirrors.update(known)
                for room, mirror in known.items():
                    assert mirror.position
                    await who.ask("subscribe", room=room, epoch=mirror.position[0], seq=mirror.position[1])
                await equal(side, who)
                assert all(mirror.resumed for mirror in known.values())
                assert {mirror.snapshots for mirror in known.values()} == {1}


async def test_coming_back_too_late(side: Side) -> None:
    """A position that was never given out, or whose rows are gone, is answered with a snapshot."""
    async with serving(side) as running, reader(running) as who:
        for epoch, seq in ((1, 1), (2**62, 5), (1_001, 10**9)):
            await who.ask("subscribe", room=TRADES, epoch=epoch, seq=seq)
            await who.until(lambda: TRADES in who.mirrors and who.mirrors[TRADES].snapshots == 1)
            assert not who.mirrors[TRADES].resumed
            del who.mirrors[TRADES]


@pytest.mark.parametrize("kind", ["plain", "websocket"])
async def test_ping_status_and_leaving(side: Side, kind: str) -> None:
    """`ping`, `get_status` and `unsubscribe` are answered; a room that was left is silent."""
    async with serving(side) as running, reader(running, kind) as who:
        await who.ask("ping")
        assert (await who.other("pong"))["t"] > 1_600_000_000_000
        await who.ask("subscribe", room=TRADES)
        await who.until(lambda: TRADES in who.mirrors)
        await who.ask("get_status")
        status = await who.other("status")
        assert status["subscriptions"] == [TRADES]
        assert status["clients"] == 1
        assert status["head"]["number"] == side.writer.state.head.number
        await who.ask("unsubscribe", room=TRADES)
        assert await who.other("unsubscribed") == {"room": TRADES}
        before = who.mirrors[TRADES].position
        await trade(side)
        await asyncio.sleep(0.3)
        assert who.mirrors[TRADES].position == before


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("no json", "bad_request"),
        ("[1]", "bad_request"),
        ("{}", "bad_request"),
        ('{"op":"drop_table"}', "unknown_op"),
        ('{"op":"subscribe"}', "unknown_room"),
        ('{"op":"subscribe","room":7}', "unknown_room"),
        ('{"op":"subscribe","room":"everything"}', "unknown_room"),
        ('{"op":"subscribe","room":"candles:0xabc:7m"}', "unknown_room"),
        ('{"op":"subscribe","room":"candles:0xabc:15m"}', "unknown_interval"),
        ('{"op":"subscribe","room":"trades:a b"}', "unknown_room"),
        ('{"op":"subscribe","room":"trades:%s"}' % ("x" * 300), "unknown_room"),
        ('{"op":"subscribe","room":"markets","epoch":1}', "bad_position"),
        ('{"op":"subscribe","room":"markets","epoch":1,"seq":-1}', "bad_position"),
        ('{"op":"subscribe","room":"markets","epoch":true,"seq":1}', "bad_position"),
        ('{"op":"ping"' + " " * 20_000 + "}", "bad_request"),
        ("[" * 10_000, "bad_request"),
    ],
)
async def test_bad_questions(side: Side, text: str, code: str) -> None:
    """What makes no sense is answered with a code, and the link goes on."""
    async with serving(side) as running, reader(running) as who:
        assert isinstance(who, PlainReader)
        await who.link.send(text)
        assert (await who.other("error"))["code"] == code
        await who.ask("ping")
        await who.other("pong")


async def test_bytes_are_no_question(side: Side) -> None:
    """A binary message is answered with an error, and the link goes on."""
    async with serving(side) as running, reader(running) as who:
        assert isinstance(who, PlainReader)
        await who.link.send(b"\x00\xff")
        assert (await who.other("error"))["code"] == "bad_request"


@pytest.mark.parametrize("kind", ["plain", "websocket"])
async def test_a_huge_message_ends_the_link(side: Side, kind: str) -> None:
    """10 MB from a client end its link at once; others are told on."""
    async with serving(side) as running, reader(running) as bystander:
        await bystander.ask("subscribe", room=TRADES)
        await bystander.until(lambda: TRADES in bystander.mirrors)
        path = (
            running.plain if kind == "plain" else f"{running.plain[:-3]}/socket.io/?EIO=4&transport=websocket"
        )
        async with connect(path, max_size=None) as link:
            with suppress(ConnectionClosed):  # while it is sent, or after
                await link.send("x" * 10_000_000)
            async with asyncio.timeout(BOUND_S):
                await link.wait_closed()
            assert link.close_code in {1006, 1009}
        await trade(side)
        await bystander.until(lambda: bystander.mirrors[TRADES].updates == 1)


async def test_a_huge_post_is_refused(side: Side) -> None:
    """10 MB by Socket.IO's polling are refused; others are told on."""
    async with serving(side) as running, reader(running) as bystander, aiohttp.ClientSession() as session:
        url = f"{running.http}/socket.io/?EIO=4&transport=polling"
        async with session.get(url) as answer:
            sid = orjson.loads((await answer.text())[1:])["sid"]
        async with session.post(f"{url}&sid={sid}", data=b"4" * 10_000_000) as answer:
            assert answer.status == 413
        await bystander.ask("ping")
        await bystander.other("pong")


@pytest.mark.parametrize("kind", ["plain", "websocket"])
async def test_a_flood_of_questions(side: Side, kind: str) -> None:
    """Who asks too often is told so, and is disconnected if that does not help; others are told on."""
    limits = ClientLimits(ops_per_s=5, ops_burst=10)
    async with serving(side, client_limits=limits) as running, reader(running) as bystander:
        await bystander.ask("subscribe", room=TRADES)
        await bystander.until(lambda: TRADES in bystander.mirrors)
        if kind == "plain":
            async with reader(running) as flood:
                assert isinstance(flood, PlainReader)
                for number in range(400):
                    try:
                        await flood.link.send(f'{{"op":"subscribe","room":"trades:{number}"}}')
                    except ConnectionClosed:
                        break
                await flood.until(lambda: flood.ended)
                assert ("error", "too_many_requests") in {
                    (event, message.get("code")) for event, message in flood.mirrors.others
                }
        else:
            flooder = SocketIoReader()
            await flooder.io.connect(running.http)
            for number in range(400):
                if not flooder.io.connected:
                    break
                await flooder.io.emit("subscribe", {"room": f"trades:{number}"})
            await soon(lambda: not flooder.io.connected)
        await trade(side)
        await bystander.until(lambda: bystander.mirrors[TRADES].updates == 1)
        assert len(running.hub.clients) == 1
        assert running.hub.rooms < 20
        assert running.meter.reasons["flood"] == 1


async def test_rooms_of_a_client_are_bounded(side: Side) -> None:
    """A client may be in so many rooms."""
    async with serving(side, client_limits=ClientLimits(subscriptions=2)) as running, reader(running) as who:
        for number in range(3):
            await who.ask("subscribe", room=f"trades:{number}")
        error = await who.other("error")
        assert (error["code"], error["room"]) == ("too_many_subscriptions", "trades:2")
        await who.ask("unsubscribe", room="trades:0")
        await who.ask("subscribe", room="trades:2")
        await who.until(lambda: "trades:2" in who.mirrors)


async def test_clients_are_bounded(side: Side) -> None:
    """One client too many is refused by either transport; when one leaves there is room again."""
    async with serving(side, limits=HubLimits(clients=1)) as running:
        async with reader(running) as who:
            await who.ask("ping")
            await who.other("pong")
            async with reader(running) as late:
                await late.until(lambda: late.ended)
            with pytest.raises(socketio.exceptions.ConnectionError):
                await SocketIoReader().io.connect(running.http, transports=["websocket"])
            assert running.meter.reasons["refused"] == 2
            assert running.hub.by_transport() == {"websocket": 1}
        await soon(lambda: not running.hub.clients)
        async with reader(running, "websocket") as who:
            await who.ask("ping")
            await who.other("pong")


@pytest.mark.parametrize("kind", ["plain", "socket.io"])
async def test_who_never_reads_is_disconnected(side: Side, kind: str) -> None:
    """A client that stops reading keeps nobody waiting, costs little memory, and is disconnected at last."""
    limits = ClientLimits(messages=20, bytes=100_000, stalled_s=1.0)
    hub_limits = HubLimits(coalesce_s=0.001)
    async with (
        serving(side, client_limits=limits, limits=hub_limits) as running,
        reader(running) as bystander,
    ):
        for room in ROOMS[:3]:
            await bystander.ask("subscribe", room=room)
        stuck = await _stuck(running, kind)
        await soon(lambda: len(running.hub.clients) == 2)
        [client] = [client for client in running.hub.clients if len(client.rooms) == 1]
        async with asyncio.timeout(3 * BOUND_S):
            while client in running.hub.clients:
                for _ in range(20):
                    side.writer.chain.mine(*[swap(0) for _ in range(30)], after_ms=1_000)
                await side.writer.follow()
                assert client._bytes <= 2 * limits.bytes
                assert len(client._waiting) <= limits.messages
        stuck.close()
        await equal(side, bystander)
        assert {mirror.snapshots for mirror in bystander.mirrors.values()} == {1}
        assert running.meter.reasons["overflow"] >= 1
        assert running.meter.reasons["slow"] == 1


async def _stuck(running: Running, kind: str) -> sockets.socket:
    """A client that subscribes and never reads."""
    path = "/ws" if kind == "plain" else "/socket.io/?EIO=4&transport=websocket"
    question = f'{{"op":"subscribe","room":"{TRADES}"}}'
    texts = [question] if kind == "plain" else ["40", f'42["subscribe",{{"room":"{TRADES}"}}]']
    stuck = sockets.socket()
    stuck.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4_096)
    stuck.setblocking(False)  # noqa: FBT003 - the library's
    loop = asyncio.get_running_loop()
    await loop.sock_connect(stuck, ("127.0.0.1", running.port))
    head = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    await loop.sock_sendall(stuck, head.encode())
    async with asyncio.timeout(BOUND_S):
        assert b" 101 " in await loop.sock_recv(stuck, 4_096)
    for text in texts:
        await loop.sock_sendall(stuck, _masked(text.encode()))
        await asyncio.sleep(0.05)
    return stuck


def _masked(text: bytes) -> bytes:
    """A frame from a client, masked with zeros."""
    assert len(text) < 126
    return bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text


READ, STREAM = (make_key(frozenset({scope})) for scope in (Scope.READ, Scope.STREAM))
UNKNOWN: Final = make_key(frozenset({Scope.STREAM}))[0]


def guarded(**options: Any) -> Security:
    """Security with two keys."""
    keys: list[ApiKey] = [READ[1], STREAM[1]]
    return Security(keys, **options)


@pytest.mark.parametrize(("which", "status"), [("unknown", 401), ("none", 401), ("read", 403)])
async def test_a_wrong_key(side: Side, which: str, status: int) -> None:
    """A wrong key, none, or one without the scope is refused by either transport; others are told on."""
    key = {"unknown": UNKNOWN, "none": "", "read": READ[0]}[which]
    async with (
        serving(side, security=guarded()) as running,
        reader(running, additional_headers={"X-API-Key": STREAM[0]}) as bystander,
    ):
        if key:
            with pytest.raises(InvalidStatus) as refused:
                await connect(running.plain, additional_headers={"Authorization": f"Bearer {key}"})
            assert refused.value.response.status_code == status
            with pytest.raises(InvalidStatus):
                await connect(f"{running.plain}?key={key}")
        async with reader(running) as late:
            await late.ask("auth", key=key)
            assert (await late.other("error"))["code"] == {401: "unauthorized", 403: "forbidden"}[status]
            await late.until(lambda: late.ended)
        with pytest.raises(socketio.exceptions.ConnectionError):
            await SocketIoReader().io.connect(running.http, auth={"key": key}, transports=["websocket"])
        await bystander.ask("subscribe", room=TRADES)
        await bystander.until(lambda: TRADES in bystander.mirrors)


async def test_a_right_key(side: Side) -> None:
    """A key is taken from a header, the query, the first message, and Socket.IO's `auth`."""
    async with serving(side, security=guarded()) as running:
        async with reader(running, additional_headers={"Authorization": f"Bearer {STREAM[0]}"}) as who:
            await who.ask("ping")
            await who.other("pong")
        async with connect(f"{running.plain}?key={STREAM[0]}") as link:
            await link.send('{"op":"ping"}')
            assert "pong" in str(await link.recv())
        async with reader(running) as who:
            await who.ask("auth", key=STREAM[0])
            await who.ask("ping")
            await who.other("pong")
        async with reader(running, "websocket", auth={"key": STREAM[0]}) as who:
            await who.ask("ping")
            await who.other("pong")


async def test_before_a_key_nothing_is_told(side: Side) -> None:
    """Who asks before showing a key is refused."""
    async with serving(side, security=guarded()) as running, reader(running) as who:
        await who.ask("subscribe", room=TRADES)
        await who.until(lambda: who.ended)
        assert not who.mirrors
        assert not running.hub.clients


async def test_links_count_against_the_rate(side: Side) -> None:
    """An address that connects too often is refused for a while, by either transport."""
    security = Security(per_address=Rate(1, 3))
    async with serving(side, security=security) as running:
        statuses = []
        for _ in range(5):
            try:
                async with connect(running.plain):
                    statuses.append(101)
            except InvalidStatus as refused:
                statuses.append(refused.response.status_code)
        assert statuses.count(429) >= 1
        url = f"{running.http}/socket.io/?EIO=4&transport=polling"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            assert answer.status == 429


@pytest.mark.parametrize(
    ("origin", "origins", "status"),
    [
        ("https://other.example", (), 403),
        ("https://other.example", ("https://app.example",), 403),
        ("https://app.example", ("https://app.example",), 101),
        ("https://other.example", ("*",), 101),
        ("http://127.0.0.1:{port}", (), 101),
    ],
)
async def test_pages_of_other_hosts(side: Side, origin: str, origins: tuple[str, ...], status: int) -> None:
    """A browser's page may connect if it is of the same host or on the list."""
    async with serving(side, origins=origins) as running:
        for path in ("/ws", "/socket.io/?EIO=4&transport=websocket"):
            try:
                async with connect(
                    f"ws://127.0.0.1:{running.port}{path}",
                    additional_headers={"Origin": origin.format(port=running.port)},
                ):
                    found = 101
            except InvalidStatus as refused:
                found = refused.response.status_code
            assert found == status, path


async def test_other_paths_are_passed_on(side: Side) -> None:
    """What is not of the sockets goes to the application behind them."""
    async with serving(side) as running, aiohttp.ClientSession() as session:
        for path in ("/", "/wsx", "/socket.iox", "/ws/more"):
            async with session.get(running.http + path) as answer:
                assert await answer.text() == "other"


async def test_lost_rows(side: Side) -> None:
    """Where rows went before they were read, everybody gets a snapshot, and goes on from there."""
    async with serving(side) as running, reader(running) as who:
        for room in ROOMS[:3]:
            await who.ask("subscribe", room=room)
        await equal(side, who)
        await trade(side, 2)
        await equal(side, who)
        await side.admin.xtrim(KEYS.outbox, maxlen=0, approximate=False)
        await side.admin.hincrby(KEYS.head, "seq", 1)
        await who.until(lambda: all(mirror.snapshots == 2 for mirror in who.mirrors.values()))
        await equal(side, who)

"""`listener serve` as browsers see it: REST, datafeed and both kinds of live sockets on one port."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import pytest
import redis
import socketio
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from listener.config.settings import Settings
from listener.infrastructure.gateway.keys import Scope, make_key
from tests.fakes.servers import valkey_server
from tests.fakes.socket_readers import BOUND_S, Reader, SocketIoReader, reader
from tests.gateway.conftest import Data
from tests.gateway.serving import KEYS, Served, write_markets

ROOT: Final = Path(__file__).resolve().parents[2]
KINDS: Final = ("plain", "websocket", "polling")
STREAM, STREAM_KEPT = make_key(frozenset({Scope.STREAM}), "browsers")
READ, READ_KEPT = make_key(frozenset({Scope.READ}), "charts")
ADMIN, ADMIN_KEPT = make_key(frozenset({Scope.ADMIN}), "grafana")

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


async def figures(served: Served, **headers: str) -> dict[str, float]:
    """Samples of `/metrics` by name and values of labels."""
    answer = await asyncio.to_thread(served.ask, "/metrics", **headers)
    return {
        ":".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


async def seen(served: Served, check: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    """Figures once they are so."""
    async with asyncio.timeout(BOUND_S):
        while not check(found := await figures(served)):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)
    return found


async def json_of(served: Served, path: str) -> Any:
    """The body of an answer."""
    answer = await asyncio.to_thread(served.ask, path)
    assert answer.status == 200, answer.body
    return answer.json


async def test_one_port_serves_everything(gateway: Served, data: Data) -> None:
    """REST, datafeed and both transports tell the same candles, and `/metrics` counts who listens."""
    market = data.markets[0]
    room = f"candles:{market}:1m"
    before = await seen(gateway, lambda found: found.get("gateway_clients:websocket", 0) == 0)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(reader(gateway.port, kind)) for kind in KINDS]
        for client in clients:
            await client.ask("subscribe", room=room)
            await client.until(lambda client=client: room in client.mirrors)  # type: ignore[misc]
        asked = await json_of(gateway, f"/api/v1/markets/{market}/candles?interval=1m")
        for client in clients:
            assert list(client.mirrors[room].items.values()) == asked["items"]
        bars = await json_of(
            gateway, f"/udf/history?symbol={market}&resolution=1&countback=100&to=2000000000"
        )
        assert bars["t"] == [candle["t"] // 1000 for candle in asked["items"]]
        now = await seen(gateway, lambda found: found.get("gateway_messages_total:socketio", 0) >= 2)
        assert (now["gateway_clients:websocket"], now["gateway_clients:socketio"]) == (1, 2)
        assert now["gateway_rooms"] == before["gateway_rooms"] + 1
        for transport, messages in (("websocket", 1), ("socketio", 2)):
            name = f"gateway_messages_total:{transport}"
            assert now[name] == before.get(name, 0) + messages
        health = await json_of(gateway, "/health")
        assert health["gateway"]["live"]["clients"] == 3
    after = await seen(gateway, lambda found: not found.get("gateway_clients:socketio"))
    assert after["gateway_requests_total:GET:/socket.io:200"] > 0
    assert "gateway_request_seconds_count:/socket.io" not in after, "polls wait: their time says nothing"


async def test_examples_of_the_documents(gateway: Served, data: Data) -> None:
    """What README and gateway.md have you type is answered, on the port that they name by default.

    For alerts see `test_alerts.py`: first a rule is made.
    """
    market, served = data.markets[0], f"127.0.0.1:{Settings.model_fields['websocket_port'].default}"
    for document in ("README.md", "docs/gateway.md", "docs/sockets.md"):
        text = (ROOT / document).read_text().replace("0x…", market).replace("0xabc…", market)
        urls = re.findall(rf"http://{served}(/api/(?!v1/alerts)[^'\s]+)", text)
        assert urls or document == "docs/sockets.md"
        for url in urls:
            assert (await json_of(gateway, url))["items"]
        asked = re.findall(rf"WebSocket\('ws://{served}(/\w+)'\).*?room: '([^']+)'", text, re.DOTALL)
        for path, room in asked:
            async with connect(f"ws://127.0.0.1:{gateway.port}{path}") as link, asyncio.timeout(BOUND_S):
                await link.send(json.dumps({"op": "subscribe", "room": room}))
                assert json.loads(await link.recv())["event"] == "snapshot"
        assert asked or document == "docs/gateway.md"
    assert f"http://{served}/udf" in (ROOT / "README.md").read_text()
    assert (await json_of(gateway, "/udf/config"))["supported_resolutions"]


@pytest.fixture(scope="module")
def guarded(data: Data) -> Iterator[Served]:
    """A gateway with a key for each scope."""
    kept = f"{STREAM_KEPT},{READ_KEPT},{ADMIN_KEPT}"
    served = Served(data.port, GATEWAY_API_KEYS=kept, GATEWAY_RATE_PER_S="0")
    try:
        yield served
    finally:
        served.child.stop()


@pytest.mark.parametrize(("which", "status"), [("none", 401), ("wrong", 401), ("read", 403), ("admin", 403)])
async def test_sockets_need_their_own_scope(guarded: Served, which: str, status: int) -> None:
    """Where there are keys, one for REST or metrics opens no socket of either kind, and none opens none."""
    key = {"none": None, "wrong": "browsers.wrong", "read": READ, "admin": ADMIN}[which]
    if key:
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{guarded.port}/ws", additional_headers={"X-API-Key": key})
        assert refused.value.response.status_code == status
    async with reader(guarded.port) as late:
        await late.ask("auth", key=key)
        said = {401: "unauthorized", 403: "forbidden"}[status]
        assert (await late.other("error"))["code"] == said
        await late.until(lambda: late.ended)
    with pytest.raises(socketio.exceptions.ConnectionError):
        await SocketIoReader().io.connect(
            f"http://127.0.0.1:{guarded.port}", auth={"key": key}, transports=["websocket"]
        )
    assert await _polled(guarded, key) == f'44{{"message":"{said}"}}'


async def _polled(served: Served, key: str | None) -> str:
    """The answer to connecting by polling."""
    path = "/socket.io/?EIO=4&transport=polling"
    opened = (await asyncio.to_thread(served.ask, path)).body.decode()
    link = f"{path}&sid={json.loads(opened[1:])['sid']}"
    await asyncio.to_thread(served.ask, link, "POST", b"40" + json.dumps({"key": key}).encode())
    return (await asyncio.to_thread(served.ask, link)).body.decode()


async def test_a_key_for_sockets_opens_nothing_else(guarded: Served, data: Data) -> None:
    """With the scope `stream` both transports tell a room; REST, datafeed and metrics refuse the key."""
    room = f"trades:{data.markets[0]}"
    options: tuple[tuple[str, dict[str, Any]], ...] = (
        ("plain", {"additional_headers": {"Authorization": f"Bearer {STREAM}"}}),
        ("websocket", {"auth": {"key": STREAM}}),
        ("polling", {"auth": {"key": STREAM}}),
    )
    for kind, shown in options:
        async with reader(guarded.port, kind, **shown) as client:
            await client.ask("subscribe", room=room)
            await client.until(lambda client=client: room in client.mirrors)  # type: ignore[misc]
    for path in ("/api/v1/config", "/udf/config", "/metrics"):
        answer = await asyncio.to_thread(guarded.ask, path, X_API_Key=STREAM)
        assert (answer.status, answer.error) == (403, "forbidden")
    assert (await figures(guarded, X_API_Key=ADMIN))["gateway_messages_total:socketio"] >= 2


async def test_a_redis_user_who_may_only_read(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Snapshots, changes and coming back need reading commands alone; one room's flush is measured."""
    with valkey_server(tmp_path_factory.mktemp("reader")) as port, redis.Redis(port=port) as admin:
        market = (await write_markets(port))[0]
        admin.acl_setuser(
            "reader", enabled=True, passwords=["+a-password"], keys=["*{31337}*"], categories=["+@read"]
        )
        url = f"redis://reader:a-password@127.0.0.1:{port}/0"
        served = Served(port, GATEWAY_RATE_PER_S="0", GATEWAY_REDIS_URL=url, GATEWAY_COALESCE_MS="10")
        try:
            async with reader(served.port) as plain, reader(served.port, "websocket") as io:
                await _told(admin, market, plain, io)
                where = plain.mirrors[f"stats:{market}"].position
            assert where
            async with reader(served.port) as back:
                back.mirrors.update(plain.mirrors)
                await back.ask("subscribe", room=f"stats:{market}", epoch=where[0], seq=where[1])
                await back.until(lambda: back.mirrors[f"stats:{market}"].resumed)
            found = await seen(served, lambda found: found["gateway_flush_seconds_count"] >= 1)
            assert found["gateway_flush_seconds_sum"] < BOUND_S
        finally:
            served.child.stop()
        assert "NOPERM" not in "\n".join(served.child.lines)


async def _told(admin: redis.Redis, market: str, *clients: Reader) -> None:
    """Both clients have a snapshot, and then what changes."""
    room = f"stats:{market}"
    for client in clients:
        await client.ask("subscribe", room=room)
        await client.until(lambda client=client: room in client.mirrors)  # type: ignore[misc]
    head = admin.hgetall(KEYS.head)
    epoch, seq = int(head[b"epoch"]), int(head[b"seq"]) + 1
    admin.hset(KEYS.stats(market), mapping={"count": 4_711})
    admin.xadd(KEYS.outbox, {"e": "market_data", "d": market}, id=f"{epoch}-{seq}")
    for client in clients:
        await client.until(
            lambda client=client: client.mirrors[room].items[""]["count"] == 4_711  # type: ignore[misc]
        )
        assert client.mirrors[room].position == (epoch, seq)

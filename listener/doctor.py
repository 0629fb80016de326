"""`listener doctor`: looks at everything the service needs and says how to mend what is wrong."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from web3 import AsyncHTTPProvider, AsyncWeb3
from web3.exceptions import Web3Exception

from listener.application.errors import BackendUnavailable, ListenerError, NodeUnavailable
from listener.config.settings import Settings
from listener.infrastructure.blockchain.heads import HintSlot, NewHeads
from listener.infrastructure.clock import SystemClock
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import SCHEMA, Keys
from listener.infrastructure.websocket.backend import SocketIoBackend

Verdict = Literal["ok", "warning", "error"]
TIMEOUT_S = 10.0
OLD_HEAD_S = 120


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    verdict: Verdict
    subject: str
    detail: str


async def examine(settings: Settings) -> AsyncGenerator[Finding, None]:
    """Findings about node, chain, contracts, Redis and backend, one by one."""
    for examination in (_node, _heads, _redis, _backend):
        async with aclosing(examination(settings)) as findings:
            async for finding in findings:
                yield finding


async def _node(settings: Settings) -> AsyncGenerator[Finding, None]:
    node = AsyncWeb3(AsyncHTTPProvider(str(settings.blockchain_http_url), {"timeout": TIMEOUT_S}))
    try:
        chain_id = await node.eth.chain_id
        tip = await node.eth.get_block("latest")
        version = await node.client_version
        codes = {
            factory: await node.eth.get_code(node.to_checksum_address(factory))
            for factory in settings.bonding_curve_factory_address
        }
    except (Web3Exception, OSError, TimeoutError, ValueError) as error:
        yield Finding(
            "error",
            "node",
            f"BLOCKCHAIN_HTTP_URL does not answer ({type(error).__name__}); is the node running?",
        )
        return
    finally:
        await node.provider.disconnect()
    yield Finding("ok", "node", f"{version}, block {tip['number']}")
    if chain_id == settings.chain_id:
        yield Finding("ok", "chain", f"chain id {chain_id}")
    else:
        yield Finding("error", "chain", f"the node serves chain {chain_id}: set CHAIN_ID={chain_id}")
    age = SystemClock().now() // 1000 - tip["timestamp"]
    if age > OLD_HEAD_S:
        yield Finding(
            "warning", "head", f"the newest block is {age} s old: the node may be syncing or stalled"
        )
    for factory, code in codes.items():
        if code:
            yield Finding("ok", "factory", factory)
        else:
            yield Finding(
                "error",
                "factory",
                f"no contract at {factory}: check BONDING_CURVE_FACTORY_ADDRESS and the chain",
            )


async def _heads(settings: Settings) -> AsyncGenerator[Finding, None]:
    if settings.blockchain_ws_url is None:
        yield Finding("ok", "heads", f"polling every {settings.poll_interval_ms} ms (no BLOCKCHAIN_WS_URL)")
        return
    subscribed = _Subscribed()
    heads = NewHeads(
        str(settings.blockchain_ws_url), settings.chain_id, HintSlot(TIMEOUT_S), subscribed, TIMEOUT_S
    )
    task = asyncio.ensure_future(heads.run())
    waiter = asyncio.ensure_future(subscribed.event.wait())
    await asyncio.wait({task, waiter}, timeout=TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
    for pending in (task, waiter):
        pending.cancel()
    outcome = (await asyncio.gather(task, waiter, return_exceptions=True))[0]
    if subscribed.event.is_set():
        yield Finding("ok", "heads", "subscribed to newHeads")
    elif isinstance(outcome, ListenerError) and not isinstance(outcome, NodeUnavailable):
        yield Finding("error", "heads", str(outcome))
    else:
        yield Finding(
            "error", "heads", "BLOCKCHAIN_WS_URL does not answer: check it, or leave it out to poll"
        )


async def _redis(settings: Settings) -> AsyncGenerator[Finding, None]:
    database, keys = Database.connect(str(settings.redis_url), TIMEOUT_S), Keys(settings.chain_id)
    try:
        server = await database.run("INFO", "server")
        policy = await database.run("CONFIG GET", "maxmemory-policy")
        persistent = await database.run("CONFIG GET", "appendonly")
        head = await database.run("HGETALL", keys.head)
    except ListenerError as error:
        yield Finding("error", "redis", f"REDIS_URL: {error}; is the server running?")
        return
    finally:
        await database.close()
    version = server.get("valkey_version") or server.get("redis_version")
    yield Finding("ok", "redis", f"{'Valkey' if 'valkey_version' in server else 'Redis'} {version}")
    if "noeviction" not in policy.values():
        yield Finding("warning", "redis", "maxmemory-policy is not noeviction: candles may vanish; set it")
    if "yes" not in persistent.values():
        yield Finding(
            "warning", "redis", "appendonly is off: a restart of Redis loses everything; turn it on"
        )
    if not head:
        yield Finding("ok", "stream", "empty: the chain will be loaded from START_BLOCK")
    elif b"schema" not in head:
        yield Finding("error", "stream", f"{keys.head} was not written by this service: use another database")
    elif int(head[b"schema"]) > SCHEMA:
        yield Finding("error", "stream", "written by a newer version: run that one, or use another database")
    else:
        yield Finding("ok", "stream", f"committed up to block {head[b'number'].decode()}")


async def _backend(settings: Settings) -> AsyncGenerator[Finding, None]:
    if settings.backend_socket_url is None or settings.backend_auth_token is None:
        yield Finding("ok", "backend", "none configured (BACKEND_SOCKET_URL)")
        return
    backend = SocketIoBackend(
        str(settings.backend_socket_url),
        settings.backend_auth_token.get_secret_value(),
        settings.chain_id,
        Keys(settings.chain_id).stream,
        TIMEOUT_S,
    )
    try:
        await backend.open()
    except BackendUnavailable as error:
        yield Finding("error", "backend", str(error))
    else:
        yield Finding("ok", "backend", "connected and accepted")
    finally:
        await backend.close()


class _Subscribed:
    """An observer that waits for the subscription."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def healthy(self, _service: str) -> None:
        self.event.set()

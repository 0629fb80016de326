"""`listener serve` over a Valkey with known data."""

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from typing import Any, Final, NamedTuple

import redis

from listener.demo.processes import Child
from listener.domain.value_objects import MINUTE_MS, Address, MarketId
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.outbox import OutboxBounds
from listener.infrastructure.redis.store import RedisStore
from tests.fakes.build import CHAIN_ID, ETHER, created, rules, swap, token, token_info
from tests.fakes.chain import LocalChain
from tests.fakes.writer import Writer

KEYS: Final = Keys(CHAIN_ID)
INTERVALS: Final = ("1m", "5m", "1d")
MARKETS: Final = 12
TRADED: Final = 10
"""The markets after these have never traded."""
MINUTES: Final = 9
NO_NODE: Final = "http://127.0.0.1:9"
"""Nobody listens there."""


class Answer(NamedTuple):
    """Of the server. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The word of an error that is as every error must be: two texts, nothing of how we work."""
        said = self.json
        assert set(said) == {"error"}
        assert set(said["error"]) == {"code", "message"}
        assert self.headers["content-type"] == "application/json"
        assert self.headers["cache-control"] == "no-store"
        for word in ("Traceback", "File ", ".py", "redis"):
            assert word not in said["error"]["message"]
        return str(said["error"]["code"])


class Served:
    """A running gateway."""

    def __init__(self, redis_port: int, *arguments: str, **settings: str) -> None:
        self.child = Child(
            "gateway",
            [sys.executable, "-c", "from listener.cli import main; main()", "serve", *arguments],
            environment={
                "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
                "CHAIN_ID": str(CHAIN_ID),
                "BLOCKCHAIN_HTTP_URL": NO_NODE,
                "WEBSOCKET_PORT": "0",
                "PYTHONUNBUFFERED": "1",
                **settings,
            },
            ready=r'"gateway_port": ?(\d+)',
        )
        self.port = int(self.child.found)

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        """One request on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(
                    method, path, body, {name.replace("_", "-"): value for name, value in headers.items()}
                )
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def answers(self) -> bool:
        """Whether it lives."""
        try:
            return self.ask("/health").status == 200
        except (OSError, HTTPException):
            return False


async def write_markets(port: int) -> list[MarketId]:
    """Markets that every order tells apart: the first has the most trades, the last traded one gains most.

    Market `n` is created in block `n + 1`; even ones trade in each minute, odd ones leave gaps.
    """
    database = Database.connect(f"redis://127.0.0.1:{port}/0", 5.0)
    by = rules(*INTERVALS[1:])
    chain = LocalChain()
    chain.tokens.update({Address(token(number)): token_info(number) for number in range(MARKETS)})
    writer = Writer(chain, RedisStore(database, KEYS, by, OutboxBounds(10_000, 100_000_000)), by)
    await writer.start(now=1_000)
    for number in range(MARKETS):
        chain.mine(created(number))
    for minute in range(MINUTES):
        swaps = [
            swap(number, 10 ** (18 if number % 2 == 0 else 6), ETHER * (number + 1) * (number + minute + 1))
            for number in range(TRADED)
            if number % 2 == 0 or minute % 4 == 0
            for _ in range(TRADED - number)
        ]
        chain.mine(*swaps, after_ms=MINUTE_MS)
    await writer.follow()
    await database.close()
    with redis.Redis(port=port) as plain:
        plain.hset(KEYS.settings, "setting:OHLCV_INTERVALS", ",".join(INTERVALS))
    return [token(number) for number in range(MARKETS)]


def forget_alerts(plain: redis.Redis) -> None:
    """Remove all rules, and what came true."""
    for name in ("alerts", "alertids", "alertlog", "alertversion", "fired"):
        if found := list(plain.scan_iter(f"{name}:*")):
            plain.delete(*found)

"""Clients for readers, in Python and in JavaScript, on a real Valkey: same questions, same answers."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pytest

from listener.application.errors import ForeignData, StoreUnavailable
from listener.client import Client, HeadRecord, MarketView, columns
from listener.demo.processes import free_port, start_valkey
from listener.domain.errors import InvalidInterval, InvalidValue
from listener.domain.value_objects import MINUTE_MS, Address
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.outbox import OutboxBounds
from listener.infrastructure.redis.store import RedisStore
from tests.fakes.build import CHAIN_ID, ETHER, MONDAY_MS, created, rules, swap, token, token_info
from tests.fakes.chain import LocalChain
from tests.fakes.writer import Writer

ROOT: Final = Path(__file__).resolve().parents[2]
MODULE: Final = ROOT / "web" / "client"
BACKEND: Final = ROOT / "web" / "backend"
DOCUMENT: Final = ROOT / "docs" / "clients.md"
BY: Final = rules("5m", "1d", "1w")
NODE_TESTS: Final = 8
ALERT: Final[dict[str, Any]] = {
    "id": "r1-9-1", "rule": "r1", "kind": "change", "s": token(0), "b": 9, "bh": "0x9", "t": MONDAY_MS,
    "trade": "9-1", "value": "-12.5", "threshold": "-10", "windowMs": 300_000,
}  # fmt: skip
MISSING: Final = "0x" + "9" * 40


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Valkey with a stream: market 0 trades in some minutes of two weeks, 600 others never did."""
    with start_valkey(tmp_path_factory.mktemp("valkey")) as server:
        url = f"redis://127.0.0.1:{server.port}"
        asyncio.run(write(url))
        yield url


async def write(url: str) -> None:
    """Fill the stream."""
    database = Database.connect(url, 5)
    writer = Writer(
        LocalChain(), RedisStore(database, Keys(CHAIN_ID), BY, OutboxBounds(500, 100_000_000)), BY
    )
    writer.chain.tokens.update({Address(token(n)): token_info(n) for n in range(601)})
    await writer.start(now=1_000)
    writer.chain.mine(created(0), swap(0, ETHER, 2 * ETHER), after_ms=MINUTE_MS)
    for number in range(1, 601, 100):
        writer.chain.mine(*(created(n) for n in range(number, number + 100)))
    for minutes, base, quote in ((1, 3, 7), (8, 1, 10**9), (3, 10**9, 1), (1_430, 3, 8), (8_650, 7, 3)):
        writer.chain.mine(swap(0, base * ETHER, quote * ETHER, buy=False), after_ms=minutes * MINUTE_MS)
    writer.chain.mine(after_ms=2 * MINUTE_MS)
    await writer.follow()
    for alert in (ALERT, ALERT | {"id": "r2-9-1", "rule": "r2"}, ALERT | {"s": token(1), "id": "r3-9-1"}):
        await database.run("LPUSH", Keys(CHAIN_ID).fired, json.dumps(alert))
    await database.run("LPUSH", Keys(CHAIN_ID).fired, json.dumps(ALERT | {"retracted": True}))
    await database.close()


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Client]:
    """A client of the stream."""
    async with Client(redis_url, CHAIN_ID) as made:
        yield made


def node(
    *arguments: str, redis_url: str, given: str = "", timeout_s: float = 60, directory: Path = MODULE
) -> str:
    """What a Node program prints."""
    program = shutil.which("node")
    assert program, "node is missing: install Node.js 20 or newer"
    ended = subprocess.run(
        [program, *arguments],
        cwd=directory,
        env={**os.environ, "NO_COLOR": "1", "FORCE_COLOR": "0", "TEST_REDIS_URL": redis_url},
        input=given,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_node_tests_pass(redis_url: str) -> None:
    """Every test of the JavaScript module runs and passes; none is skipped."""
    output = node("--test", "--test-reporter=tap", "test/client.test.js", redis_url=redis_url)
    totals = {name: int(count) for name, count in re.findall(r"(?m)^# (\w+) (\d+)$", output)}
    assert (totals["tests"], totals["pass"]) == (NODE_TESTS, NODE_TESTS), output
    assert (totals["fail"], totals["skipped"], totals["todo"], totals["cancelled"]) == (0, 0, 0, 0), output


def at(minute: int) -> int:
    """A minute after the first trade."""
    return MONDAY_MS + (minute + 1) * MINUTE_MS


SERIES: Final[list[tuple[str, dict[str, Any]]]] = [
    ("1m", {}),
    ("1m", {"limit": 2}),
    ("1m", {"limit": 2, "start": at(1)}),
    ("1m", {"start": at(1), "end": at(13)}),
    ("1m", {"end": at(13), "limit": 2, "opening": "previous"}),
    ("1m", {"fill": True, "limit": 4_000, "opening": "previous"}),
    ("1m", {"fill": True, "start": at(-3), "limit": 20}),
    ("1m", {"fill": True, "start": at(1) + 1, "end": at(30) - 1}),
    ("1m", {"fill": True, "start": at(10_090)}),
    ("5m", {"fill": True, "limit": 5_000}),
    ("1d", {"fill": True, "opening": "previous"}),
    ("1w", {"fill": True, "start": at(0) - 1}),
    ("1w", {}),
]


async def test_both_clients_answer_alike(client: Client, redis_url: str) -> None:
    """Ranges, filling, opening, micro and giant prices, pages of markets: the same to the last byte."""
    calls: list[list[Any]] = [["candles", token(0), name, query] for name, query in SERIES]
    calls += [["ohlcv", token(0), "5m", None, 50], ["ohlcv", token(0), "1m", at(1), 3, {"fill": True}]]
    calls += [["alerts"], ["alerts", 2, {"market": token(0).upper()}], ["alerts", 1, {"rule": "r1"}]]
    calls += [["trades", token(0), 3], ["market", token(0)], ["market", MISSING], ["stats", token(0)]]
    calls += [["stats", token(1)], ["head"], ["markets"], ["markets", {"after": MONDAY_MS + MINUTE_MS}]]
    given = json.dumps({"chainId": CHAIN_ID, "calls": calls})
    answers = json.loads(node("test/answer.js", redis_url=redis_url, given=given))
    here: list[Any] = [await client.candles(token(0), name, **query) for name, query in SERIES]
    here += [await client.ohlcv(token(0), "5m", None, 50)]
    here += [await client.ohlcv(token(0), "1m", at(1), 3, fill=True)]
    here += [await client.alerts(), await client.alerts(2, market=token(0).upper())]
    here += [await client.alerts(1, rule="r1")]
    here += [await client.trades(token(0), 3), await client.market(token(0)), await client.market(MISSING)]
    here += [await client.stats(token(0)), await client.stats(token(1)), await client.head()]
    here += [[view async for view in client.markets()]]
    here += [[view async for view in client.markets(after=MONDAY_MS + MINUTE_MS)]]
    for call, theirs, ours in zip(calls, answers, here, strict=True):
        assert theirs == plain(ours), call
        assert theirs or call[:2] in (["market", MISSING], ["stats", token(1)]), call
    undone = [alert.retracted for alert in here[len(SERIES) + 2]]
    assert undone == [True, False, False]
    assert len(here[-2]) == len(here[-1]) + 1 == 601


def plain(answer: Any) -> Any:
    """As JSON has it, names as in JavaScript."""
    if isinstance(answer, HeadRecord | MarketView):
        names = {"as_of": "asOf", "chain_id": "chainId"}
        return {names.get(name, name): plain(value) for name, value in answer._asdict().items()}
    if isinstance(answer, list):
        return [plain(part) for part in answer]
    return msgspec.to_builtins(answer)


async def test_columns_are_what_dataframes_take(client: Client) -> None:
    """Equal columns of numbers, or of exact text."""
    rows = await client.candles(token(0), "1m", fill=True, limit=50)
    table, exact = columns(rows), columns(rows, exact=True)
    assert {len(column) for column in table.values()} == {len(rows)} == {50}
    assert table["time"] == [row.t for row in rows]
    assert exact["close"] == [row.c for row in rows]
    assert table["close"] == [float(row.c) for row in rows]
    assert pa.table(table).num_rows == 50
    assert {type(value) for column in table.values() for value in column} == {int, float}


async def test_instants_may_be_datetimes(client: Client) -> None:
    """A time that knows its zone is as good as milliseconds; one that does not is refused."""
    moment = datetime.fromtimestamp(at(2) / 1000, UTC)
    here = await client.candles(token(0), "1m", start=moment, limit=1)
    assert here == await client.candles(token(0), "1m", start=at(2), limit=1)
    assert here[0].t == at(2)
    with pytest.raises(InvalidValue, match="time zone"):
        await client.candles(token(0), "1m", start=moment.replace(tzinfo=None))


async def test_ids_may_be_checksummed(client: Client) -> None:
    """Addresses as wallets write them name the same market."""
    mixed = "0x" + token(0)[2:].upper()
    assert mixed != token(0)
    assert await client.market(mixed) == await client.market(token(0)) is not None
    assert len(await client.candles(mixed, "1m")) == 6
    assert len(await client.trades(mixed)) == 6
    assert await client.stats(mixed)


async def test_errors_have_names(client: Client, redis_url: str) -> None:
    """Nonsense, foreign data and a server that is away are told apart."""
    with pytest.raises(InvalidInterval):
        await client.candles(token(0), "7m")
    with pytest.raises(InvalidValue):
        await client.candles(token(0), "1m", limit=5_001, fill=True)
    database = Database.connect(redis_url, 5)
    await database.run("RPUSH", Keys(7).trades(MISSING), "{}")
    await database.close()
    async with Client(redis_url, 7) as other:
        with pytest.raises(ForeignData):
            await other.trades(MISSING)
        with pytest.raises(InvalidValue):
            await other.alerts(1_001)
    async with Client(f"redis://127.0.0.1:{free_port()}", CHAIN_ID) as nobody:
        with pytest.raises(StoreUnavailable):
            await nobody.head()


def examples(language: str) -> str:
    """The first block of that language in the document."""
    found = re.search(rf"(?ms)^```{language}\n(.*?)^```", DOCUMENT.read_text())
    assert found
    return found[1]


def filled_in(example: str, redis_url: str) -> str:
    """The example with this server and a market of it."""
    return example.replace("redis://127.0.0.1:6379/0", redis_url).replace("0x…", token(0))


def test_the_example_in_python_runs(redis_url: str) -> None:
    """Pasted into a coroutine, with another address, it reads candles."""
    lines = filled_in(examples("python"), redis_url).splitlines()
    pasted = "\n".join(f"    {line}" for line in lines)
    program = (
        f"import asyncio\n\nasync def main():\n{pasted}\n    print(len(candles))\n\nasyncio.run(main())\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "6\n"), ended.stderr


def test_the_example_in_javascript_runs(redis_url: str) -> None:
    """The same, with the module by its path and the library that the backend has."""
    example = filled_in(examples("js"), redis_url).replace(
        "'@0xpads/chart-client'", repr(str(MODULE / "index.js"))
    )
    program = f"{example}\nconsole.log(candles.length)\nredis.destroy()\n"
    printed = node("--input-type=module", "-e", program, redis_url=redis_url, directory=BACKEND)
    assert printed == "6\n"

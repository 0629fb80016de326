"""`listener export`: files with exactly what Redis holds, whole or not at all."""

import asyncio
import csv
import os
import pty
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from pyarrow import parquet
from redis import Redis
from typer.testing import CliRunner

from listener.application.errors import InvalidConfiguration
from listener.application.use_cases.export_candles import PAGE_CANDLES
from listener.cli import app
from listener.commands.terminal import console
from listener.config.settings import Settings
from listener.demo.processes import start_valkey
from listener.domain.value_objects import MINUTE_MS, ONE_MINUTE
from listener.exporting import Done, Export, format_of, parse_instant
from listener.exporting import export as run_export
from listener.infrastructure.export.parquet_file import ROW_GROUP
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.outbox import OutboxBounds
from listener.infrastructure.redis.store import RedisStore
from tests.fakes.build import CHAIN_ID, ETHER, MONDAY_MS, created, rules, swap, token
from tests.fakes.chain import LocalChain
from tests.fakes.writer import Writer

KEYS: Final = Keys(CHAIN_ID)
FIELDS: Final = {
    "time": "t", "open": "o", "high": "h", "low": "l", "close": "c", "volume": "v", "quote_volume": "q",
    "buy_volume": "V", "buy_quote_volume": "Q", "trades": "n", "buys": "N",
}  # fmt: skip
COUNTS: Final = ("time", "trades", "buys")
PEAK_BYTES: Final = 8_000_000
MANY: Final = ROW_GROUP + 2 * PAGE_CANDLES + 7
"""Candles of the long series: more than one row group and not a multiple of a page."""
LONG: Final = token(2)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A Valkey with three markets: some trades, none at all, and a very long series."""
    with start_valkey(tmp_path_factory.mktemp("valkey")) as server:
        asyncio.run(write(server.port))
        yield server.port


async def write(port: int) -> None:
    """Fill the stream."""
    database, by = Database.connect(f"redis://127.0.0.1:{port}", 5), rules("5m")
    writer = Writer(LocalChain(), RedisStore(database, KEYS, by, OutboxBounds(500, 100_000_000)), by)
    await writer.start(now=1_000)
    writer.chain.mine(created(0), swap(0, ETHER, 2 * ETHER), created(1), created(2), after_ms=MINUTE_MS)
    for minutes, base, quote in ((1, 3, 7), (8, 1, 10**9), (3, 10**9, 1)):
        writer.chain.mine(swap(0, base * ETHER, quote * ETHER, buy=False), after_ms=minutes * MINUTE_MS)
    await writer.follow()
    await database.run("HSET", KEYS.settings, "setting:OHLCV_INTERVALS", "1m,5m")
    [raw] = await database.run("ZRANGE", KEYS.candles(token(0), "1m"), 0, 0)
    candle = orjson.loads(raw)
    first = candle["t"]
    for start in range(0, MANY, 5_000):
        words: list[str | int | bytes] = []
        for number in range(start, min(start + 5_000, MANY)):
            open_time = first + number * MINUTE_MS
            words += [open_time, orjson.dumps({**candle, "t": open_time, "n": number + 1})]
        await database.run("ZADD", KEYS.candles(LONG, "1m"), *words)
    await database.close()


@pytest.fixture(autouse=True)
def settings(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that name this Redis, and no others."""
    monkeypatch.chdir(tmp_path)
    for name in [*Settings.model_fields, "env"]:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("BONDING_CURVE_FACTORY_ADDRESS", "0x" + "fa" * 20)
    monkeypatch.setenv("CHAIN_ID", str(CHAIN_ID))
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{port}")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(console, "width", 1000)


@pytest.fixture
def redis(port: int) -> Iterator[Redis]:
    """A plain client."""
    with Redis(port=port) as client:
        yield client


def export(*words: str) -> tuple[int, str]:
    """Exit code and output of `listener export`."""
    result = CliRunner().invoke(app, ["export", *words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def stored(redis: Redis, market: str, interval: str = "1m") -> list[dict[str, Any]]:
    """A series as the file shall have it, decimals as text."""
    members: Any = redis.zrange(KEYS.candles(market, interval), 0, -1)
    return [
        {"market": market, **{name: orjson.loads(member)[field] for name, field in FIELDS.items()}}
        for member in members
    ]


def in_parquet(path: Path) -> list[dict[str, Any]]:
    """Rows of a Parquet file, times in ms."""
    rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return [{**row, "time": int(row["time"].timestamp() * 1000)} for row in rows]


def in_csv(path: Path) -> list[dict[str, Any]]:
    """Rows of a CSV file, integers as such."""
    with path.open(newline="") as file:
        return [
            {name: int(value) if name in COUNTS else value for name, value in row.items()}
            for row in csv.DictReader(file)
        ]


def test_parquet_holds_what_redis_holds(redis: Redis, tmp_path: Path) -> None:
    """Every market by creation, every candle over several row groups; numbers are the nearest doubles."""
    code, output = export("all", "--out", "all.parquet")
    assert (code, output) == (0, f"{MANY + 4} candles of 3 market(s) written to all.parquet\n")
    path = tmp_path / "all.parquet"
    expected = [*stored(redis, token(0)), *stored(redis, LONG)]
    decimals = set(FIELDS) - set(COUNTS)
    assert in_parquet(path) == [
        {name: float(value) if name in decimals else value for name, value in row.items()} for row in expected
    ]
    file = parquet.ParquetFile(path)
    assert file.metadata.num_row_groups == 2
    about = {name.decode(): value.decode() for name, value in file.schema_arrow.metadata.items()}
    assert about["chain_id"] == str(CHAIN_ID)
    assert about["interval"] == "1m"
    assert int(about["as_of"]) == int(redis.hget(KEYS.head, "asOf") or 0)  # type: ignore[arg-type]
    file.close()


def test_text_is_exact(redis: Redis, tmp_path: Path) -> None:
    """CSV, and Parquet where asked for, have each decimal to its last digit."""
    assert export(token(0), "--out", "a.csv")[0] == 0
    assert export("T0", "--out", "a.data", "--format", "parquet", "--exact")[0] == 0
    assert in_csv(tmp_path / "a.csv") == in_parquet(tmp_path / "a.data") == stored(redis, token(0))
    assert max(len(row["close"]) for row in stored(redis, token(0))) > 20


def test_a_range_and_an_interval_are_kept_to(redis: Redis, tmp_path: Path) -> None:
    """`--from` is in, `--to` is not; the other interval is its own series."""
    rows = stored(redis, LONG)
    start, end = rows[3]["time"], rows[PAGE_CANDLES + 10]["time"]
    assert export(LONG, "--from", str(start), "--to", str(end), "--out", "part.csv")[0] == 0
    assert in_csv(tmp_path / "part.csv") == rows[3 : PAGE_CANDLES + 10]
    assert export(token(0), "--interval", "5m", "--out", "five.csv")[0] == 0
    assert in_csv(tmp_path / "five.csv") == stored(redis, token(0), "5m")


def test_gaps_are_filled_over_pages(tmp_path: Path, redis: Redis) -> None:
    """One candle a minute up to the head, joined where candles open at the previous close."""
    assert export(token(0), "--fill", "--open", "previous", "--out", "flat.csv")[0] == 0
    rows = in_csv(tmp_path / "flat.csv")
    assert [row["time"] for row in rows] == [MONDAY_MS + n * MINUTE_MS for n in range(1, 14)]
    assert [row["open"] for row in rows[1:]] == [row["close"] for row in rows[:-1]]
    assert [row["time"] for row in rows if row["trades"]] == [row["time"] for row in stored(redis, token(0))]


def test_a_market_that_never_traded_is_an_empty_table(tmp_path: Path) -> None:
    """Columns and no row, in both formats."""
    assert export(token(1), "--out", "none.parquet")[0] == export(token(1), "--out", "none.csv")[0] == 0
    table = parquet.read_table(tmp_path / "none.parquet")
    assert (table.num_rows, table.column_names) == (0, ["market", *FIELDS])
    assert (tmp_path / "none.csv").read_bytes().decode() == ",".join(["market", *FIELDS]) + "\r\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["0x" + "9" * 40, "--out", "a.csv"], "there is no market"),
        (["all", "--out", "a.csv", "--interval", "1h"], "only 1m, 5m"),
        (["all", "--out", "a.csv", "--interval", "7m"], "does not divide a day"),
        (["all", "--out", "a.csv", "--from", "yesterday"], "2026-01-31"),
        (["all", "--out", "away/a.csv"], "away/a.csv cannot be written: No such file"),
        (["all", "--out", "there.csv"], "--force"),
    ],
)
def test_what_cannot_be_exported_is_named(words: list[str], says: str, tmp_path: Path) -> None:
    """One line that says what is wrong, exit code 1, no file, and a file that was there untouched."""
    (tmp_path / "there.csv").write_text("mine")
    code, output = export(*words)
    assert code == 1
    assert says in output
    assert len(output.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there.csv"]
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_a_file_is_replaced_when_asked_to(tmp_path: Path, redis: Redis) -> None:
    """`--force` puts the new file in the place of the old one."""
    (tmp_path / "there.csv").write_text("mine")
    assert export(token(0), "--out", "there.csv", "--force")[0] == 0
    assert in_csv(tmp_path / "there.csv") == stored(redis, token(0))


class Interrupted(BaseException):
    """As Ctrl-C."""


@pytest.mark.parametrize("name", ["there.csv", "there.parquet"])
def test_a_broken_export_leaves_what_was_there(name: str, tmp_path: Path, port: int) -> None:
    """Neither half a file nor its remains, and the old file as it was."""
    path = tmp_path / name
    path.write_text("mine")
    pages = 0

    def interrupt(_done: Done) -> None:
        nonlocal pages
        pages += 1
        if pages == 3:
            assert len(list(tmp_path.iterdir())) == 2
            raise Interrupted

    wanted = Export(LONG, ONE_MINUTE, path, format_of(path), replace=True)
    with pytest.raises(Interrupted):
        asyncio.run(run_export(f"redis://127.0.0.1:{port}", CHAIN_ID, wanted, interrupt))
    assert [found.name for found in tmp_path.iterdir()] == [name]
    assert path.read_text() == "mine"


def test_memory_does_not_grow_with_the_file(tmp_path: Path, port: int) -> None:
    """No more than some pages are held: the bound is far below what all rows would take."""
    wanted = Export(LONG, ONE_MINUTE, tmp_path / "long.csv", "csv")
    tracemalloc.start()
    try:
        done = asyncio.run(run_export(f"redis://127.0.0.1:{port}", CHAIN_ID, wanted, lambda _done: None))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert done == Done(1, 1, MANY)
    assert wanted.path.stat().st_size > 4_000_000
    assert peak < PEAK_BYTES


def test_progress_is_shown_on_a_terminal() -> None:
    """Markets and candles on standard error, taken away at the end; the result on standard output."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "listener.cli", "export", "all", "--out", "all.csv"],
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # the end of a terminal, on Linux
        while part := os.read(ours, 65_536):
            shown += part
    os.close(ours)
    result = process.communicate(timeout=30)[0]
    assert (process.returncode, result) == (0, f"{MANY + 4} candles of 3 market(s) written to all.csv\n")
    assert f"market 3/3, {MANY + 4} candles" in shown.decode()


def test_another_chain_has_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty file would look like a chain without trades."""
    monkeypatch.setenv("CHAIN_ID", "7")
    code, output = export("all", "--out", "a.csv")
    assert (code, output) == (1, "Error: Redis holds nothing of chain 7\n")
    assert list(tmp_path.iterdir()) == []


def test_without_pyarrow_the_command_to_install_it_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Parquet is an extra; CSV works without it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "listener.infrastructure.export.parquet_file", raising=False)
    code, output = export(token(0), "--out", "a.parquet")
    assert code == 1
    assert "pip install '0xpads-listener[export]'" in output
    assert list(tmp_path.iterdir()) == []
    assert export(token(0), "--out", "a.csv")[0] == 0


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose clock is not set to UTC."""
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1700000000000", 1_700_000_000_000),
        ("2026-01-05", MONDAY_MS),
        ("2026-01-05T00:01", MONDAY_MS + MINUTE_MS),
        ("2026-01-05T00:01Z", MONDAY_MS + MINUTE_MS),
        ("2026-01-05T02:01+02:00", MONDAY_MS + MINUTE_MS),
    ],
)
def test_times_are_utc_unless_they_say_otherwise(text: str, ms: int) -> None:
    """Dates, times and milliseconds."""
    assert parse_instant(text) == ms


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01", "-5", "1e9"])
def test_other_times_are_refused(text: str) -> None:
    """By name, with an example."""
    with pytest.raises(InvalidConfiguration, match="2026-01-31"):
        parse_instant(text)

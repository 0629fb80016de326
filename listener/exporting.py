"""Wiring of `listener export`."""

import sys
from collections.abc import Callable
from contextlib import aclosing, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, NamedTuple, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from listener.application.errors import InvalidConfiguration
from listener.application.use_cases.export_candles import ExportQuery, export_pages
from listener.application.use_cases.present_candles import Opening
from listener.domain.value_objects import ONE_MINUTE, Interval, Timestamp
from listener.infrastructure.export.csv_file import CsvFile
from listener.infrastructure.export.files import CandleFile, put_in_place
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.maintenance import find_market
from listener.infrastructure.redis.reader import RedisReader

FileFormat = Literal["parquet", "csv"]
FORMATS: Final[tuple[FileFormat, ...]] = ("parquet", "csv")
EVERY: Final = "all"
"""In the place of a market: every one."""
TIMEOUT_S: Final = 10.0
"""Of one Redis command."""


@dataclass(frozen=True, slots=True)
class Export:
    """What shall be exported, and where to.

    Attributes:
        market: id, or symbol of a recent market, or `all`.
        start: earliest open time, in ms; None: any.
        end: first open time that is not wanted, in ms; None: none.
        exact: decimals as text in Parquet too.
        replace: whether a file of that name may be replaced.
    """

    market: str
    interval: Interval
    path: Path
    form: FileFormat
    start: Timestamp | None = None
    end: Timestamp | None = None
    filled: bool = False
    opening: Opening = "first"
    exact: bool = False
    replace: bool = False


class Done(NamedTuple):
    """How far an export has come."""

    markets: int
    of_markets: int
    candles: int


class ExportDisplay:
    """Shows on a terminal how far an export has come; elsewhere nothing."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("exporting"),
            BarColumn(),
            TextColumn("market {task.completed}/{task.total}, {task.fields[candles]} candles"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("candles", total=None, candles=0)

    def update(self, done: Done) -> None:
        """It has come so far."""
        self._bar.update(self._task, completed=done.markets, total=done.of_markets, candles=done.candles)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._bar.stop()


def parse_instant(text: str) -> Timestamp:
    """Unix milliseconds, or an ISO 8601 date or time, UTC unless it says otherwise.

    Raises:
        InvalidConfiguration: it is neither.
    """
    if text.isdecimal():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidConfiguration(
            f"{text!r} is not a time: write 2026-01-31, 2026-01-31T12:00Z or milliseconds"
        ) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def format_of(path: Path) -> FileFormat:
    """By the ending of its name; CSV if that says nothing."""
    return next((form for form in FORMATS if path.suffix.lower() == f".{form}"), "csv")


async def export(redis_url: str, chain_id: int, wanted: Export, tell: Callable[[Done], None]) -> Done:
    """Write the file; `tell` is called after each page.

    Raises:
        InvalidConfiguration: no such market or interval, the file exists, or pyarrow is missing.
        StoreUnavailable, StoreMisused, ForeignData, NewerSchema: see `MarketReader`.
        OSError: the file cannot be written.
    """
    if wanted.path.exists() and not wanted.replace:
        raise InvalidConfiguration(f"{wanted.path} exists: name another file, or add --force")
    database, keys = Database.connect(redis_url, TIMEOUT_S), Keys(chain_id)
    try:
        return await _export(database, keys, wanted, tell)
    finally:
        await database.close()


async def _export(database: Database, keys: Keys, wanted: Export, tell: Callable[[Done], None]) -> Done:
    reader = RedisReader(database, keys)
    head = await reader.head()
    if head is None:
        raise InvalidConfiguration(f"Redis holds nothing of chain {keys.chain_id}")
    await _check_interval(reader, wanted.interval)
    market = None if wanted.market == EVERY else await _market(database, keys, wanted.market)
    total = 1 if market else int(await database.run("ZCARD", keys.markets))
    query = ExportQuery(market, wanted.interval, wanted.start, wanted.end, wanted.filled, wanted.opening)
    about = {
        "chain_id": str(keys.chain_id),
        "interval": wanted.interval.name,
        "as_of": str(head.as_of),
        "opening": wanted.opening,
    }
    done = Done(0, total, 0)
    with put_in_place(wanted.path) as path, closing(_file(wanted, path, about)) as file:
        async with aclosing(export_pages(reader, query)) as pages:
            async for page in pages:
                file.write(page.market, page.rows)
                markets = done.markets + page.last
                done = Done(markets, max(total, markets), done.candles + len(page.rows))
                tell(done)
        file.finish()
    return done


async def _check_interval(reader: RedisReader, interval: Interval) -> None:
    """Minutes are always made."""
    made = await reader.intervals()
    if interval != ONE_MINUTE and made and interval.name not in made:
        raise InvalidConfiguration(f"no {interval} candles are made, only {', '.join(made)}")


async def _market(database: Database, keys: Keys, wanted: str) -> str:
    found = await find_market(database, keys, wanted)
    if found is None:
        raise InvalidConfiguration(f"there is no market {wanted} on chain {keys.chain_id}")
    return found


def _file(wanted: Export, path: Path, about: dict[str, str]) -> CandleFile:
    if wanted.form == "csv":
        return CsvFile(path)
    try:
        from listener.infrastructure.export.parquet_file import ParquetFile  # noqa: PLC0415 - an extra
    except ImportError:
        raise InvalidConfiguration(
            "Parquet needs pyarrow: pip install '0xpads-listener[export]', or write --format csv"
        ) from None
    return ParquetFile(path, about, exact=wanted.exact)

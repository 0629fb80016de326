"""Commands that read what is stored: candles, export, top."""

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from listener.application.errors import InvalidConfiguration
from listener.commands.terminal import REDIS_TIMEOUT_S, console, fail, run, settings_or_exit
from listener.config.settings import ReaderSettings
from listener.domain.errors import InvalidInterval
from listener.domain.value_objects import Interval
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.maintenance import find_market, read_candles

app = typer.Typer()


@app.command()
def candles(
    market: Annotated[str, typer.Argument(help="market id, or symbol of a recent market")],
    interval: Annotated[str, typer.Argument(help="1m, 5m, 1h, …")],
    *,
    limit: Annotated[int, typer.Option(help="newest candles shown", min=1, max=1500)] = 30,
    plot: Annotated[bool, typer.Option("--plot", help="draw a chart")] = False,
) -> None:
    """Print a market's candles."""
    settings = settings_or_exit(ReaderSettings)
    try:
        Interval.parse(interval)
    except InvalidInterval as error:
        fail(str(error))

    async def read() -> tuple[str | None, list[Mapping[str, Any]]]:
        database, keys = Database.connect(str(settings.redis_url), REDIS_TIMEOUT_S), Keys(settings.chain_id)
        try:
            found = await find_market(database, keys, market)
            return found, await read_candles(database, keys, found, interval, limit) if found else []
        finally:
            await database.close()

    found, rows = run(read())
    if found is None:
        fail(
            f"no market {market!r} on chain {settings.chain_id}; "
            f"ids are in the key {Keys(settings.chain_id).markets}"
        )
    if not rows:
        fail(f"market {found} has no {interval} candles; OHLCV_INTERVALS lists the intervals that are made")
    if plot:
        _plot(found, interval, rows)
    else:
        console.print(_table(found, interval, rows))


@app.command()
def export(
    market: Annotated[str, typer.Argument(help="market id, symbol of a recent market, or all")],
    *,
    out: Annotated[Path, typer.Option(help="file to write")],
    interval: Annotated[str, typer.Option(help="1m, 5m, 1h, …")] = "1m",
    start: Annotated[
        str | None,
        typer.Option("--from", help="earliest open time: 2026-01-31, 2026-01-31T12:00 (UTC), or ms"),
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="first open time that is not wanted")] = None,
    form: Annotated[
        Literal["parquet", "csv"] | None, typer.Option("--format", help="by the file's ending, if not given")
    ] = None,
    fill: Annotated[bool, typer.Option("--fill", help="flat candles where nobody traded")] = False,
    opening: Annotated[
        Literal["first", "previous"], typer.Option("--open", help="at the first trade, or the previous close")
    ] = "first",
    exact: Annotated[bool, typer.Option("--exact", help="decimals as text in Parquet too")] = False,
    force: Annotated[bool, typer.Option("--force", help="replace the file")] = False,
) -> None:
    """Write candles to a Parquet or CSV file. Memory stays the same, however many there are."""
    from listener.exporting import Export, ExportDisplay, export, format_of, parse_instant

    settings = settings_or_exit(ReaderSettings)
    try:
        wanted = Export(
            market=market,
            interval=Interval.parse(interval),
            path=out,
            form=form or format_of(out),
            start=None if start is None else parse_instant(start),
            end=None if end is None else parse_instant(end),
            filled=fill,
            opening=opening,
            exact=exact,
            replace=force,
        )
    except (InvalidInterval, InvalidConfiguration) as error:
        fail(str(error))
    try:
        with ExportDisplay() as display:
            done = run(export(str(settings.redis_url), settings.chain_id, wanted, display.update))
    except OSError as error:
        fail(f"{out} cannot be written: {error.strerror or error}")
    console.print(f"{done.candles} candles of {done.markets} market(s) written to {out}", highlight=False)


@app.command()
def top(
    *,
    once: Annotated[bool, typer.Option("--once", help="print one look and end")] = False,
    every: Annotated[float, typer.Option(help="seconds between looks", min=0.2, max=60)] = 1.0,
    metrics: Annotated[
        str | None, typer.Option(help="address of /metrics [default: on this host, at WEBSOCKET_PORT]")
    ] = None,
    key: Annotated[
        str, typer.Option(envvar="LISTENER_API_KEY", help="API key with the scope admin, where keys are set")
    ] = "",
) -> None:
    """Watch the service: head, lag, rates, outbox, clients and the busiest markets. Ctrl-C ends it."""
    from listener.infrastructure.clock import SystemClock
    from listener.infrastructure.redis.reader import RedisReader
    from listener.top import Watch, show

    settings = settings_or_exit(ReaderSettings)
    url = metrics or f"http://127.0.0.1:{settings.websocket_port}/metrics"

    async def watch() -> None:
        database = Database.connect(str(settings.redis_url), REDIS_TIMEOUT_S)
        try:
            reader = RedisReader(database, Keys(settings.chain_id))
            await show(Watch(reader, SystemClock(), url, key), console, every, once=once)
        finally:
            await database.close()

    try:
        run(watch())
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _table(market: str, interval: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=f"{market} {interval}, UTC", title_justify="left")
    for column in ("time", "open", "high", "low", "close", "volume", "quote", "trades"):
        table.add_column(column, justify="left" if column == "time" else "right", no_wrap=column == "time")
    for row in rows:
        figures = (_short(row[name]) for name in ("o", "h", "l", "c", "v", "q"))
        table.add_row(f"{_time(row['t']):%Y-%m-%d %H:%M}", *figures, str(row["n"]))
    return table


def _short(text: str, digits: int = 8) -> str:
    """A decimal cut to so many significant digits, for people."""
    whole, _, fraction = text.partition(".")
    if whole != "0":
        kept = fraction[: max(digits - len(whole), 0)]
    else:
        zeros = len(fraction) - len(fraction.lstrip("0"))
        kept = fraction[: zeros + digits]
    kept = kept.rstrip("0")
    return f"{whole}.{kept}" if kept else whole


def _plot(market: str, interval: str, rows: Sequence[Mapping[str, Any]]) -> None:
    import plotext

    form = "%d/%m %H:%M"
    times = [_time(row["t"]).strftime(form) for row in rows]
    names = (("Open", "o"), ("High", "h"), ("Low", "l"), ("Close", "c"))
    plotext.clear_figure()
    plotext.date_form(form.replace("%", ""))
    plotext.theme("clear")
    plotext.plotsize(min(console.width, 140), 24)
    plotext.title(f"{market} {interval}, UTC")
    plotext.candlestick(times, {name: [float(row[field]) for row in rows] for name, field in names})
    sys.stdout.write(plotext.build() + "\n")

"""The `listener` command.

What only one command needs is imported by that command: `listener health` runs every half minute.
"""

import asyncio
import json
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from listener import __version__
from listener.application.errors import InvalidConfiguration, ListenerError
from listener.config.settings import Settings, load_settings
from listener.domain.errors import InvalidInterval
from listener.domain.value_objects import Interval
from listener.infrastructure.observability.logs import SecretMask
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.maintenance import find_market, read_candles, reset_stream

if TYPE_CHECKING:
    from listener.application.services.rebuild import Difference

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Follows an EVM chain and turns trades into candles in Redis and events for a backend.",
)
console = Console()
REDIS_TIMEOUT_S = 10.0
DIFFERENCES_SHOWN = 50
SIGNS = {"ok": "[green]ok[/green]", "warning": "[yellow]warning[/yellow]", "error": "[red]error[/red]"}


@app.command()
def run() -> None:
    """Run the service (the same as `python -m listener.main`)."""
    from listener.main import run as run_service

    raise typer.Exit(run_service())


@app.command()
def version() -> None:
    """Print the version."""
    console.print(__version__)


@app.command()
def demo(
    port: Annotated[
        int | None, typer.Option(help="of the chart page [default: 3000 if free, else any]")
    ] = None,
    seed: Annotated[int, typer.Option(help="of the invented traders")] = 7,
    rate: Annotated[float, typer.Option(help="trades a second", min=0.1, max=200)] = 6.0,
    seconds: Annotated[float | None, typer.Option(help="stop after this long")] = None,
) -> None:
    """Start a local chain, Valkey, the backend, traders and the service, and print the chart's address."""
    from listener.demo.run import run_demo

    raise typer.Exit(run_demo(port, seed, rate, seconds))


@app.command()
def candles(
    market: Annotated[str, typer.Argument(help="market id, or symbol of a recent market")],
    interval: Annotated[str, typer.Argument(help="1m, 5m, 1h, …")],
    *,
    limit: Annotated[int, typer.Option(help="newest candles shown", min=1, max=1500)] = 30,
    plot: Annotated[bool, typer.Option("--plot", help="draw a chart")] = False,
) -> None:
    """Print a market's candles."""
    settings = _settings()
    try:
        Interval.parse(interval)
    except InvalidInterval as error:
        _fail(str(error))

    async def read() -> tuple[str | None, list[Mapping[str, Any]]]:
        database, keys = Database.connect(str(settings.redis_url), REDIS_TIMEOUT_S), Keys(settings.chain_id)
        try:
            found = await find_market(database, keys, market)
            return found, await read_candles(database, keys, found, interval, limit) if found else []
        finally:
            await database.close()

    found, rows = _run(read())
    if found is None:
        _fail(
            f"no market {market!r} on chain {settings.chain_id}; "
            f"ids are in the key {Keys(settings.chain_id).markets}"
        )
    if not rows:
        _fail(f"market {found} has no {interval} candles; OHLCV_INTERVALS lists the intervals that are made")
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

    settings = _settings()
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
        _fail(str(error))
    try:
        with ExportDisplay() as display:
            done = _run(export(str(settings.redis_url), settings.chain_id, wanted, display.update))
    except OSError as error:
        _fail(f"{out} cannot be written: {error.strerror or error}")
    console.print(f"{done.candles} candles of {done.markets} market(s) written to {out}", highlight=False)


@app.command()
def doctor() -> None:
    """Check node, chain id, contracts, Redis and backend, and say how to mend what is wrong."""
    from listener.doctor import Finding, examine

    settings = _settings()
    mask = SecretMask(settings.secrets())

    async def look() -> list[Finding]:
        findings = []
        async for finding in examine(settings):
            console.print(
                f"{SIGNS[finding.verdict]:>26}  {finding.subject}: {mask.text(finding.detail)}",
                highlight=False,
            )
            findings.append(finding)
        return findings

    findings = _run(look())
    raise typer.Exit(int(any(finding.verdict == "error" for finding in findings)))


@app.command()
def health() -> None:
    """Ask the running service on this host whether it is alive; exit code 0 or 1."""
    settings = _settings()
    port, scheme = settings.websocket_port, "https" if settings.gateway_tls_cert else "http"
    anyone = ssl.create_default_context()  # the certificate names another host than this one
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    url = f"{scheme}://127.0.0.1:{port}/health"
    try:
        with urllib.request.urlopen(url, timeout=3, context=anyone) as answer:  # noqa: S310 - of ours
            console.print_json(json.dumps(json.load(answer)))
    except (OSError, urllib.error.URLError, ValueError) as error:
        _fail(f"no answer on port {port}: {error}")


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

    settings = _settings()
    url = metrics or f"http://127.0.0.1:{settings.websocket_port}/metrics"

    async def watch() -> None:
        database = Database.connect(str(settings.redis_url), REDIS_TIMEOUT_S)
        try:
            reader = RedisReader(database, Keys(settings.chain_id))
            await show(Watch(reader, SystemClock(), url, key), console, every, once=once)
        finally:
            await database.close()

    try:
        _run(watch())
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="where to listen [default: WEBSOCKET_HOST]")] = None,
    port: Annotated[
        int | None, typer.Option(help="[default: WEBSOCKET_PORT]; the next free one", min=0, max=65_535)
    ] = None,
) -> None:
    """Serve charts and browsers from Redis, without following a chain; several may run side by side."""
    from listener.serving import run_alone

    raise typer.Exit(run_alone(_settings(), host, port))


@app.command("api-key")
def api_key(
    scope: Annotated[list[str] | None, typer.Option(help="read, stream or admin; may be repeated")] = None,
    name: Annotated[str, typer.Option(help="id of the key [default: a random one]")] = "",
) -> None:
    """Make an API key; print it, this once, and what to add to GATEWAY_API_KEYS."""
    from listener.infrastructure.gateway.keys import Scope, make_key

    try:
        key, kept = make_key(frozenset(map(Scope, scope or ["read", "stream"])), name)
    except ValueError as error:
        _fail(str(error))
    console.print(f"key:               {key}", highlight=False, soft_wrap=True)
    console.print(f"GATEWAY_API_KEYS:  {kept}", highlight=False, soft_wrap=True)


@app.command()
def resync(
    start: Annotated[
        int | None, typer.Option("--from", help="first block that matters [default: START_BLOCK]", min=0)
    ] = None,
) -> None:
    """Load the chain anew beside the stored data and switch over; the service may go on meanwhile.

    For a lower first block, or for settings that give candles another meaning: readers see the old data until
    the new is complete, then the new at once, and the backend is told to read again. Goes on where an earlier
    attempt was broken off. Needs as much of Redis' memory again while it runs.
    """
    from listener.rebuilding import Rebuilding

    number = _run(Rebuilding(_settings(), start).resync())
    console.print(f"Switched over at block {number}.")


@app.command()
def verify(
    market: Annotated[
        str | None, typer.Argument(help="market id, or symbol of a recent market [default: all]")
    ] = None,
    *,
    repair: Annotated[bool, typer.Option("--repair", help="where something differs, load all anew")] = False,
) -> None:
    """Compute everything from the chain once more and compare; exit code 1 where something differs.

    The service may go on meanwhile. Needs as much of Redis' memory again while it runs.
    """
    from listener.application.errors import OrphanedHead
    from listener.rebuilding import Rebuilding

    shown = 0

    def tell(difference: "Difference") -> None:
        nonlocal shown
        shown += 1
        if shown <= DIFFERENCES_SHOWN:
            _show(difference)

    async def compare() -> int:
        try:
            return await Rebuilding(_settings(), None).verify(market, tell)
        except OrphanedHead as error:
            console.print(str(error), highlight=False)
            return 1

    found = _run(compare())
    console.print(f"{found or 'No'} difference{'' if found == 1 else 's'}.")
    if found and repair:
        number = _run(Rebuilding(_settings(), None).resync())
        console.print(f"Repaired: switched over at block {number}.")
    elif found:
        raise typer.Exit(1)


def _show(difference: "Difference") -> None:
    console.print(
        f"{difference.market} {difference.piece}\n"
        f"  stored {_piece(difference.stored)}\n"
        f"  chain  {_piece(difference.right)}",
        highlight=False,
        markup=False,
    )


def _piece(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@app.command()
def reset(*, yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False) -> None:
    """Remove everything stored of the chain, so that the next start loads it anew. Stop the service first."""
    settings = _settings()
    where = SecretMask(settings.secrets()).text(str(settings.redis_url))
    if not yes:
        typer.confirm(f"Remove everything of chain {settings.chain_id} from {where}?", abort=True)

    async def remove() -> int:
        database = Database.connect(str(settings.redis_url), REDIS_TIMEOUT_S)
        try:
            return await reset_stream(database, Keys(settings.chain_id))
        finally:
            await database.close()

    console.print(f"Removed {_run(remove())} keys.")


def _settings() -> Settings:
    try:
        return load_settings()
    except InvalidConfiguration as error:
        sys.stderr.write(f"Error in the settings:\n{error}\n")
        raise typer.Exit(error.exit_code) from None


def _run(work: Any) -> Any:  # noqa: ANN401 - whatever the coroutine returns
    try:
        return asyncio.run(work)
    except ListenerError as error:
        _fail(str(error))


def _fail(message: str) -> None:
    sys.stderr.write(f"Error: {message}\n")
    raise typer.Exit(1)


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


def main() -> None:
    """Entry point of the `listener` command."""
    app()


if __name__ == "__main__":
    main()

"""`listener top`: what the service does now, on a terminal. Reads Redis and `/metrics`, writes nothing."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from listener.application.errors import ListenerError
from listener.application.interfaces import Clock
from listener.application.reading import HeadRecord, MarketReader, MarketView

MARKETS_READ: Final = 1_000
"""Newest markets among which the busiest are looked for."""
MARKETS_EVERY_S: Final = 5.0
"""How often their figures are read again: a thousand of them are eight round trips."""
MARKETS_SHOWN: Final = 15
METRICS_TIMEOUT_S: Final = 3.0
METRICS_BYTES_MOST: Final = 4_000_000
HOUR_MS: Final = 3_600_000
PAGES_MOST: Final = 100
"""Pages of market ids in one look; beyond them the newest of what was read are shown."""

Samples = Mapping[tuple[str, str], float]
"""Values by name and by the values of the labels, joined by commas."""


class Snapshot(NamedTuple):
    """What was found at one instant.

    Attributes:
        at: seconds, for rates.
        now: wall clock, ms.
        samples: of `/metrics`; None: it did not answer.
        problem: why Redis did not.
    """

    at: float
    now: int
    head: HeadRecord | None
    markets: Sequence[MarketView]
    samples: Samples | None
    problem: str = ""


def parsed(text: str) -> Samples:
    """Samples of an exposition.

    Raises:
        ValueError: it is none.
    """
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Watch:
    """Takes snapshots.

    Args:
        reader: the stream.
        metrics_url: of `/metrics`.
        key: API key for it, or empty.
    """

    def __init__(self, reader: MarketReader, clock: Clock, metrics_url: str, key: str = "") -> None:
        self._reader = reader
        self._clock = clock
        self._url = metrics_url
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._markets: Sequence[MarketView] = ()
        self._markets_at = float("-inf")

    async def look(self) -> Snapshot:
        """One snapshot. What does not answer is missing in it."""
        samples = await self._samples()
        at, now = self._clock.monotonic(), self._clock.now()
        try:
            head = await self._reader.head()
            if at - self._markets_at >= MARKETS_EVERY_S:
                self._markets, self._markets_at = await self._busiest(now), at
        except ListenerError as error:
            return Snapshot(at, now, None, self._markets, samples, str(error))
        return Snapshot(at, now, head, self._markets, samples)

    async def _busiest(self, now: int) -> list[MarketView]:
        """Of the newest markets those with the most trades in 24 h."""
        found = await newest_markets(self._reader, now)
        views = [view for view in await self._reader.views(found) if view is not None and view.stats]
        views.sort(key=lambda view: _number(view, "count"), reverse=True)
        return views[:MARKETS_SHOWN]

    async def _samples(self) -> Samples | None:
        try:
            async with (
                asyncio.timeout(METRICS_TIMEOUT_S),
                aiohttp.ClientSession(headers=self._headers) as session,
                session.get(self._url) as answer,
            ):
                if answer.status != 200:
                    return None
                body = await answer.content.read(METRICS_BYTES_MOST)
                while not answer.content.at_eof() and len(body) < METRICS_BYTES_MOST:
                    body += await answer.content.read(METRICS_BYTES_MOST - len(body))
                return parsed(body.decode())
        except (aiohttp.ClientError, OSError, ValueError):
            return None


async def newest_markets(reader: MarketReader, now: int) -> list[str]:
    """Ids of the newest markets: the port lists them from an instant on, so it goes back by longer steps."""
    span = HOUR_MS
    while True:
        found = await _created_after(reader, max(now - span, 0) - 1)
        if len(found) >= MARKETS_READ or span > now:
            return found[-MARKETS_READ:]
        span *= 4


async def _created_after(reader: MarketReader, after: int) -> list[str]:
    """Markets created after an instant, oldest first; the last of them, where they are very many."""
    found: list[str] = []
    for _ in range(PAGES_MOST):
        page = await reader.market_ids(after, MARKETS_READ)
        found = [*found[-MARKETS_READ:], *(market for market, _ in page)]
        if len(page) < MARKETS_READ:
            break
        after = page[-1][1]
    return found


class View:
    """Draws snapshots; keeps the last one for rates."""

    def __init__(self) -> None:
        self._last: Snapshot | None = None

    def draw(self, snapshot: Snapshot) -> RenderableType:
        """The whole screen."""
        last, self._last = self._last, snapshot
        parts: list[RenderableType] = [_title(snapshot)]
        if snapshot.problem:
            parts.append(Text(f"Redis: {snapshot.problem}", style="red"))
        if snapshot.samples is None:
            parts.append(Text("/metrics does not answer: figures of Redis only", style="yellow"))
        else:
            parts.append(_figures(snapshot, last))
        parts.append(_markets(snapshot.markets))
        return Group(*parts)


def _title(snapshot: Snapshot) -> Text:
    head = snapshot.head
    if head is None:
        return Text("no stream in Redis yet", style="bold yellow")
    text = Text.assemble(
        ("chain ", "dim"), str(head.chain_id), ("  block ", "dim"), (str(head.number), "bold")
    )
    age_s = max(snapshot.now - head.timestamp, 0) / 1000
    text.append(f"  {age_s:.0f} s old", style="green" if age_s < 60 else "yellow")
    if snapshot.samples is not None:
        ready = snapshot.samples.get(("listener_ready", ""))
        lag = snapshot.samples.get(("listener_head_lag_blocks", ""), 0)
        text.append(f"  {lag:.0f} behind", style="green" if lag < 3 else "yellow")
        if ready is not None:
            text.append("  ready" if ready else "  not ready", style="green" if ready else "red")
        for (name, service), value in snapshot.samples.items():
            if name == "listener_trouble" and value:
                text.append(f"  {service}!", style="red")
    return text


def _figures(snapshot: Snapshot, last: Snapshot | None) -> Table:
    table = Table.grid(padding=(0, 3))
    samples = snapshot.samples or {}

    def rate(name: str) -> str:
        return f"{per_second(name, snapshot, last):.1f}"

    def value(name: str) -> str:
        return f"{samples.get((name, ''), 0):,.0f}"

    clients = sum(count for (name, _), count in samples.items() if name == "gateway_clients")
    memory = samples.get(("listener_process_resident_memory_bytes", ""), 0) / 1e6
    rows = (
        ("trades/s", rate("listener_trades_total"), "trades", value("listener_trades_total")),
        ("blocks/s", rate("listener_blocks_total"), "reorgs", value("listener_reorg_depth_blocks_count")),
        ("RPC calls/s", rate("listener_rpc_calls_total"), "requests/s", rate("gateway_requests_total")),
        ("commit p99", _ms(snapshot, "listener_commit_seconds"), "delivery p99", _ms(snapshot, DELIVERY)),
        (
            "head to commit p99",
            _ms(snapshot, "listener_head_to_commit_seconds"),
            "memory",
            f"{memory:.0f} MB",
        ),
        (
            "outbox rows",
            value("listener_outbox_rows"),
            "undelivered",
            value("listener_outbox_undelivered_rows"),
        ),
        (
            "oldest waits",
            f"{samples.get(('listener_outbox_age_seconds', ''), 0):.0f} s",
            "clients",
            f"{clients:.0f}",
        ),
    )
    for left, figure, right, other in rows:
        table.add_row(
            Text(left, "dim"), Text(figure, justify="right"), Text(right, "dim"), Text(other, justify="right")
        )
    return table


DELIVERY: Final = "listener_commit_to_delivery_seconds"


def per_second(name: str, snapshot: Snapshot, last: Snapshot | None) -> float:
    """Rate of a counter, all labels together: since the last snapshot, or since the service's start."""
    found = snapshot.samples or {}
    total = _sum(found, name)
    if last is not None and last.samples is not None and snapshot.at > last.at:
        before = _sum(last.samples, name)
        return (total - before if total >= before else total) / (snapshot.at - last.at)
    started = found.get((f"{name.partition('_')[0]}_process_start_time_seconds", ""))
    return total / max(snapshot.now / 1000 - started, 1.0) if started else 0.0


def _sum(samples: Samples, name: str) -> float:
    return sum(value for (found, _), value in samples.items() if found == name)


def quantile(samples: Samples, name: str, part: float) -> float | None:
    """Upper bound of the bucket in which a quantile of a histogram without labels lies; None: nothing yet."""
    buckets = sorted(
        (float(bound), count) for (found, bound), count in samples.items() if found == f"{name}_bucket"
    )
    if not buckets or not buckets[-1][1]:
        return None
    wanted = part * buckets[-1][1]
    return next(bound for bound, count in buckets if count >= wanted)


def _ms(snapshot: Snapshot, name: str) -> str:
    found = quantile(snapshot.samples or {}, name, 0.99)
    if found is None:
        return "-"
    return "> 30 s" if found == float("inf") else f"≤ {found * 1000:g} ms"


def _markets(markets: Sequence[MarketView]) -> Table:
    table = Table(title="busiest markets, 24 h", title_justify="left", expand=False)
    for column in ("market", "trades", "volume", "last price", "change"):
        table.add_column(column, justify="left" if column == "market" else "right", no_wrap=True)
    for view in markets:
        stats = view.stats or {}
        symbol = f"{view.record.get('symbol') or '?'}/{view.record.get('quoteSymbol') or ''}"
        change = _number(view, "priceChangePercent")
        table.add_row(
            Text(f"{symbol[:24]}  {view.market[:10]}"),
            str(stats.get("count", 0)),
            f"{_number(view, 'quoteVolume'):.4g}",
            f"{_number(view, 'lastPrice'):.6g}",
            Text(f"{change:+.2f} %", "green" if change > 0 else "red" if change < 0 else ""),
        )
    return table


def _number(view: MarketView, field: str) -> float:
    value = (view.stats or {}).get(field)
    return float(str(value)) if value is not None else 0.0


async def show(watch: Watch, console: Console, every_s: float, *, once: bool) -> None:
    """Draw, once or until cancelled."""
    view = View()
    if once:
        console.print(view.draw(await watch.look()))
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            started = time.monotonic()
            live.update(view.draw(await watch.look()), refresh=True)
            await asyncio.sleep(max(every_s - (time.monotonic() - started), 0.1))

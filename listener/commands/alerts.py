"""Commands about alert rules, and what came true of them."""

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple, TypeVar

import typer
from rich.table import Table

from listener.commands.terminal import REDIS_TIMEOUT_S, console, fail, run, settings_or_exit
from listener.config.settings import ReaderSettings
from listener.domain.alerts import AlertCondition, AlertKind
from listener.domain.errors import DomainError
from listener.domain.value_objects import MINUTE_MS, MarketId
from listener.infrastructure.clock import SystemClock
from listener.infrastructure.redis.alert_codec import rule_item
from listener.infrastructure.redis.alert_rules import PAGE_MOST, RedisAlertRules
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.fired import FIRED_KEPT, FiredAlerts
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.maintenance import find_market

app = typer.Typer(no_args_is_help=True, help="Alert rules: make, list, show and remove them; what came true.")

T = TypeVar("T")
Market = Annotated[
    str | None, typer.Option(help="id, or symbol of a recent market [default: each market by itself]")
]
OfMarket = Annotated[str | None, typer.Option(help="only of this one: id, or symbol of a recent market")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object a line, as in the contract")]
RuleId = Annotated[str, typer.Argument(help="id of the rule")]


class Desk(NamedTuple):
    """What the commands ask.

    Attributes:
        market: finds a market's id by id or symbol.
    """

    rules: RedisAlertRules
    fired: FiredAlerts
    market: Callable[[str | None], Awaitable[MarketId | None]]


@app.command(context_settings={"ignore_unknown_options": True})  # a threshold may begin with a minus sign
def create(
    kind: Annotated[AlertKind, typer.Argument(help="what is waited for")],
    threshold: Annotated[
        str | None,
        typer.Argument(
            help="price; per cent (change); times the usual volume (volume_spike); quote amount (trade_size)"
        ),
    ] = None,
    *,
    market: Market = None,
    window: Annotated[
        int | None, typer.Option(help="minutes that change and volume_spike look back", min=1)
    ] = None,
    repeat: Annotated[bool, typer.Option("--repeat", help="may come true again")] = False,
    hysteresis: Annotated[
        str | None, typer.Option(help="per cent of the threshold to go back before it may come true again")
    ] = None,
    note: Annotated[str | None, typer.Option(help="for people")] = None,
) -> None:
    """Make a rule and print it. It counts half a second later at the latest."""
    asked = {
        "kind": kind.value,
        "threshold": threshold,
        "windowMs": None if window is None else window * MINUTE_MS,
        "repeat": repeat,
        "hysteresis": hysteresis,
        "note": note,
    }

    async def make(desk: Desk) -> dict[str, Any]:
        expected = kind is AlertKind.MARKET_CREATED  # there is nothing to be found yet
        found = market if expected else await desk.market(market)
        condition = AlertCondition.parse({**asked, "market": found})
        return rule_item(await desk.rules.create(condition, SystemClock().now()))

    _print(_ask(make))


@app.command("list")
def list_rules(*, market: OfMarket = None, as_json: AsJson = False) -> None:
    """Print all rules, oldest first."""

    async def read(desk: Desk) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        of, after = await desk.market(market), ""
        while True:
            page = await desk.rules.page(after, PAGE_MOST, of)
            found += map(rule_item, page.rules)
            if page.after is None:
                return found
            after = page.after

    _show(_ask(read), ("id", "kind", "market", "threshold", "windowMs", "repeat", "note"), as_json=as_json)


@app.command()
def show(rule: RuleId) -> None:
    """Print one rule."""

    async def read(desk: Desk) -> dict[str, Any]:
        found = await desk.rules.get(rule)
        return rule_item(found) if found else fail(f"no rule {rule}")

    _print(_ask(read))


@app.command()
def delete(rule: RuleId) -> None:
    """Remove a rule."""

    async def remove(desk: Desk) -> bool:
        return await desk.rules.delete(rule)

    if not _ask(remove):
        fail(f"no rule {rule}")
    console.print(f"Removed {rule}.", highlight=False)


@app.command()
def fired(
    *,
    market: OfMarket = None,
    rule: Annotated[str | None, typer.Option(help="only of this rule")] = None,
    limit: Annotated[int, typer.Option(help="newest alerts shown", min=1, max=FIRED_KEPT)] = 30,
    as_json: AsJson = False,
) -> None:
    """Print what came true, newest first. What a reorg has undone says so."""

    async def read(desk: Desk) -> list[dict[str, Any]]:
        records = await desk.fired.newest(limit, await desk.market(market) or "", rule or "")
        return [json.loads(record) for record in records]

    names = ("t", "kind", "s", "value", "threshold", "rule", "retracted")
    _show(_ask(read), names, as_json=as_json)


def _ask(question: Callable[[Desk], Awaitable[T]]) -> T:
    """What the stored data answers; the command ends where the question makes no sense."""
    settings = settings_or_exit(ReaderSettings)
    keys = Keys(settings.chain_id)

    async def ask() -> T:
        database = Database.connect(str(settings.redis_url), REDIS_TIMEOUT_S)

        async def market(wanted: str | None) -> MarketId | None:
            if wanted is None:
                return None
            found = await find_market(database, keys, wanted)
            return MarketId(found) if found else fail(f"no market {wanted!r} on chain {settings.chain_id}")

        try:
            return await question(Desk(RedisAlertRules(database, keys), FiredAlerts(database, keys), market))
        except DomainError as error:
            fail(str(error))
        finally:
            await database.close()

    return run(ask())


def _print(item: dict[str, Any]) -> None:
    console.print(json.dumps(item, ensure_ascii=False), highlight=False, markup=False, soft_wrap=True)


def _show(items: list[dict[str, Any]], names: tuple[str, ...], *, as_json: bool) -> None:
    if as_json:
        for item in items:
            _print(item)
        return
    table = Table(*names)
    for item in items:
        table.add_row(*(_cell(name, item.get(name)) for name in names))
    console.print(table, markup=False)


def _cell(name: str, value: object) -> str:
    if name == "t" and isinstance(value, int):
        return f"{datetime.fromtimestamp(value / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(value, bool):
        return "yes" if value else ""
    return "" if value is None else str(value)

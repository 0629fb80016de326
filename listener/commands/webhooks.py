"""`listener webhooks …`: endpoints, from the command line."""

import json
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.table import Table

from listener.application.webhook_rules import parse_row
from listener.application.webhooks import EVENTS, LOG_MAX, OVERLAP_MS, Endpoint
from listener.commands.terminal import REDIS_TIMEOUT_S, console, fail, run, settings_or_exit
from listener.config.settings import ReaderSettings
from listener.domain.errors import DomainError
from listener.infrastructure.redis.client import Database
from listener.infrastructure.webhooks.presenting import attempt_item, endpoint_item, replay_item

if TYPE_CHECKING:
    from listener.application.services.webhook_admin import WebhookAdmin

T = TypeVar("T")

HOUR_MS = 3_600_000

app = typer.Typer(no_args_is_help=True, help="Endpoints that every change is posted to, signed.")

Id = Annotated[str, typer.Argument(help="of the endpoint; `listener webhooks list` shows it")]


@app.command()
def create(
    url: Annotated[str, typer.Argument(help="where messages are posted")],
    *,
    event: Annotated[
        list[str] | None, typer.Option(help=f"may be repeated: {', '.join(EVENTS)} [default: all]")
    ] = None,
    note: Annotated[str, typer.Option(help="for people")] = "",
) -> None:
    """Add an endpoint and print its secret, this once. It gets what is committed from now on."""
    endpoint = _ask(lambda admin: admin.create(url, event or (), note))
    console.print(f"id:      {endpoint.id}", highlight=False)
    _print_secret(endpoint)


@app.command("list")
def list_(
    *, as_json: Annotated[bool, typer.Option("--json", help="everything, for programs")] = False
) -> None:
    """Show all endpoints and how they do."""
    found = _ask(lambda admin: admin.endpoints())
    if as_json:
        _print_json([endpoint_item(*pair) for pair in found])
        return
    table = Table("id", "url", "events", "status", "note")
    for endpoint, state in found:
        status = state.status.value
        if state.failing:
            status = f"{status}, failing since {_time(state.failing.since)}: {state.failing.error}"
        if state.reason:
            status = f"{status}: {state.reason}"
        table.add_row(endpoint.id, endpoint.url, ", ".join(endpoint.events) or "all", status, endpoint.note)
    console.print(table)


@app.command()
def show(endpoint: Id) -> None:
    """Print one endpoint as JSON."""
    found = _known(_ask(lambda admin: admin.show(endpoint)), endpoint)
    _print_json(endpoint_item(*found))


@app.command()
def delete(endpoint: Id) -> None:
    """Remove an endpoint with its log."""
    _known(_ask(lambda admin: admin.delete(endpoint)), endpoint)
    console.print(f"Deleted {endpoint}.", highlight=False)


@app.command()
def enable(endpoint: Id) -> None:
    """Deliver from where it stopped; one that fails is tried at once."""
    _known(_ask(lambda admin: admin.enable(endpoint)), endpoint)
    console.print(f"Enabled {endpoint}.", highlight=False)


@app.command()
def disable(endpoint: Id) -> None:
    """Send nothing more to it. What it misses is kept as long as any row."""
    _known(_ask(lambda admin: admin.disable(endpoint)), endpoint)
    console.print(f"Disabled {endpoint}.", highlight=False)


@app.command()
def rotate(
    endpoint: Id,
    *,
    overlap_h: Annotated[
        float, typer.Option("--overlap-hours", help="how long the secret of before signs as well", min=0)
    ] = OVERLAP_MS / HOUR_MS,
) -> None:
    """Make a new secret and print it, this once."""
    found = _known(_ask(lambda admin: admin.rotate(endpoint, round(overlap_h * HOUR_MS))), endpoint)
    _print_secret(found)


@app.command()
def log(
    endpoint: Id,
    *,
    limit: Annotated[int, typer.Option(help="newest requests shown", min=1, max=LOG_MAX)] = 30,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Show the newest requests to an endpoint, newest first."""
    _known(_ask(lambda admin: admin.show(endpoint)), endpoint)
    found = _ask(lambda admin: admin.attempts(endpoint, limit))
    if as_json:
        _print_json([attempt_item(attempt) for attempt in found])
        return
    table = Table("time, UTC", "message", "event", "attempt", "answer", "ms")
    for attempt in found:
        number = f"{attempt.attempt}{' again' if attempt.replayed else ''}"
        answer = attempt.error or str(attempt.status)
        table.add_row(_time(attempt.t), attempt.id, attempt.event, number, answer, str(attempt.ms))
    console.print(table)


@app.command()
def redeliver(
    endpoint: Id,
    *,
    message: Annotated[str | None, typer.Option(help="id of a message in the log")] = None,
    first: Annotated[str | None, typer.Option("--from", help="first row, <epoch>-<seq>")] = None,
    last: Annotated[str | None, typer.Option("--to", help="last row")] = None,
) -> None:
    """Have a message, or a range of rows, sent once more by the process that delivers."""
    if (message is None) is (first is None) or (first is None) is not (last is None):
        fail("write --message, or --from and --to")
    if message is not None:
        begun = _ask(lambda admin: admin.redeliver(endpoint, message))
    else:
        begun = _ask(
            lambda admin: admin.redeliver_rows(endpoint, parse_row(first or ""), parse_row(last or ""))
        )
    _print_json(replay_item(_known(begun, endpoint)))


@app.command("run")
def run_delivery() -> None:
    """Deliver, without following a chain. Of several that run, here or elsewhere, one delivers."""
    from listener.delivering import run_alone

    raise typer.Exit(run_alone(settings_or_exit(ReaderSettings)))


def _ask(work: Callable[["WebhookAdmin"], Coroutine[Any, Any, T]]) -> T:
    """Do something with the endpoints."""
    from listener.administering import webhook_admin

    settings = settings_or_exit(ReaderSettings)

    async def connected() -> T:
        database = Database.connect(str(settings.redis_url), REDIS_TIMEOUT_S)
        try:
            return await work(webhook_admin(settings, database))
        finally:
            await database.close()

    try:
        return run(connected())
    except DomainError as error:
        fail(str(error))


def _known(found: T | None, endpoint: str) -> T:
    """What was found."""
    if not found:
        fail(f"no endpoint {endpoint}; `listener webhooks list` shows them")
    return found


def _print_secret(endpoint: Endpoint) -> None:
    console.print(f"secret:  {endpoint.secrets[0].text}", highlight=False, soft_wrap=True)


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _time(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M:%S}"

"""Commands that load, compare or remove all that is stored of a chain."""

from typing import TYPE_CHECKING, Annotated

import typer

from listener.commands.terminal import REDIS_TIMEOUT_S, console, run, settings_or_exit
from listener.config.settings import ReaderSettings
from listener.infrastructure.observability.logs import SecretMask
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.maintenance import reset_stream

if TYPE_CHECKING:
    from listener.application.services.rebuild import Difference

app = typer.Typer()
DIFFERENCES_SHOWN = 50


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

    number = run(Rebuilding(settings_or_exit(), start).resync())
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
            return await Rebuilding(settings_or_exit(), None).verify(market, tell)
        except OrphanedHead as error:
            console.print(str(error), highlight=False)
            return 1

    found = run(compare())
    console.print(f"{found or 'No'} difference{'' if found == 1 else 's'}.")
    if found and repair:
        number = run(Rebuilding(settings_or_exit(), None).resync())
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
    settings = settings_or_exit(ReaderSettings)
    where = SecretMask(settings.secrets()).text(str(settings.redis_url))
    if not yes:
        typer.confirm(f"Remove everything of chain {settings.chain_id} from {where}?", abort=True)

    async def remove() -> int:
        database = Database.connect(str(settings.redis_url), REDIS_TIMEOUT_S)
        try:
            return await reset_stream(database, Keys(settings.chain_id))
        finally:
            await database.close()

    console.print(f"Removed {run(remove())} keys.")

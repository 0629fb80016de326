"""How a process of the service runs and ends: on request, or with the exit code of what stopped it."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

import structlog

from listener.application.errors import Fatal


async def until_stopped(work: Callable[[], Awaitable[None]]) -> int:
    """Do something until SIGINT or SIGTERM; the exit code."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    if task:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
    try:
        await work()
    except asyncio.CancelledError:
        structlog.get_logger("listener").info("Stopped on request")
    except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - this is where it ends
        return code_of(error)
    return 0


def code_of(error: BaseException) -> int:
    """The exit code of a process that an error has ended, which is logged."""
    log = structlog.get_logger("listener")
    fatal = error
    while isinstance(fatal, BaseExceptionGroup):
        fatal = fatal.exceptions[0]
    if not isinstance(fatal, Fatal):
        log.error("Error, a defect", exc_info=error)
        return 1
    log.error("Error, stopping", error=f"{type(fatal).__name__}: {fatal}")
    return fatal.exit_code

"""What all commands share: settings, the terminal, and how an error is told."""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, Final, NoReturn, TypeVar

import typer
from rich.console import Console

from listener.application.errors import InvalidConfiguration, ListenerError
from listener.config.settings import Settings, load_settings

T = TypeVar("T")

REDIS_TIMEOUT_S: Final = 10.0

console: Final = Console()


def settings_or_exit(kind: type[Settings] = Settings) -> Settings:
    """Settings; where they are wrong, the command ends and says how."""
    try:
        return load_settings(kind)
    except InvalidConfiguration as error:
        sys.stderr.write(f"Error in the settings:\n{error}\n")
        raise typer.Exit(error.exit_code) from None


def run(work: Coroutine[Any, Any, T]) -> T:
    """What the coroutine gives; the command ends where it fails in a way that has a name."""
    try:
        return asyncio.run(work)
    except ListenerError as error:
        fail(str(error))


def fail(message: str) -> NoReturn:
    """End the command with an error."""
    sys.stderr.write(f"Error: {message}\n")
    raise typer.Exit(1)

"""Structured logs: pretty on a terminal, JSON otherwise, secrets masked in both."""

import logging
import logging.handlers
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

MASK: Final = "***"
NOISY: Final = ("socketio", "engineio", "websockets", "asyncio", "aiohttp")


class SecretMask:
    """Replaces known secrets wherever they turn up in a log line."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = sorted((secret for secret in secrets if secret), key=len, reverse=True)

    def text(self, text: str) -> str:
        """`text` without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        """Mask every text of a log line."""
        return {name: self._masked(value) for name, value in event.items()}

    def _masked(self, value: Any) -> Any:  # noqa: ANN401 - whatever a log line holds
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {name: self._masked(inner) for name, inner in value.items()}
        return [self._masked(inner) for inner in value] if isinstance(value, list | tuple | set) else value


def configure(level: str, file: str | None, secrets: Sequence[str], stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's logs to `stream` (standard output) and a file.

    Args:
        level: least level.
        file: JSON lines are appended to it; reopened when it was rotated away.
        secrets: texts to mask.
        stream: where lines go; coloured if it is a terminal, JSON if not.
    """
    stream = stream or sys.stdout
    mask = SecretMask(secrets)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    json_lines: list[Processor] = [
        structlog.processors.format_exc_info,
        mask,
        structlog.processors.JSONRenderer(serializer=_dumps),
    ]
    pretty: list[Processor] = [structlog.processors.format_exc_info, mask, structlog.dev.ConsoleRenderer()]
    handlers: list[logging.Handler] = [logging.StreamHandler(stream)]
    renderers = [pretty if stream.isatty() else json_lines]
    if file:
        handlers.append(logging.handlers.WatchedFileHandler(file, encoding="utf-8"))
        renderers.append(json_lines)
    root = logging.getLogger()
    root.handlers.clear()
    root.setLevel(level)
    for handler, renderer in zip(handlers, renderers, strict=True):
        handler.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=shared,
                processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
            )
        )
        root.addHandler(handler)
    for name in NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _dumps(value: object, **_options: Any) -> str:  # noqa: ANN401 - structlog's own options
    return orjson.dumps(value, default=str).decode()

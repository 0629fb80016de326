"""The listener, telling each acknowledgement of the backend at INFO.

`listener.main` tells them at DEBUG, together with a line for each trade: that would be what is measured then.
"""

import sys

import structlog

from listener import main as service
from listener.application.interfaces import RowId
from listener.infrastructure.observability.observer import LogObserver


def delivered(self: LogObserver, last: RowId, messages: int, seconds: float) -> None:  # noqa: ARG001 - a method
    """In the place of `LogObserver.delivered`."""
    structlog.get_logger("listener").info(
        "Updates acknowledged", seq=last.seq, messages=messages, ms=round(seconds * 1000, 2)
    )


def main() -> int:
    """Run the service; its exit code."""
    LogObserver.delivered = delivered  # type: ignore[method-assign]
    return service.run()


if __name__ == "__main__":
    sys.exit(main())

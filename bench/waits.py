"""The listener with a stopwatch on its waiting: for the node, or for anything else.

The event loop waits in its selector. While it does and a request to the node is under way, the listener waits
for the node, and perhaps for Redis too. Measured from the first line `Catching up` to `Following the head`.
"""

import functools
import json
import selectors
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple, Self

from listener import main as service
from listener.infrastructure.blockchain.rpc import HttpRpc
from listener.infrastructure.observability.observer import LogObserver


class Waits(NamedTuple):
    """Seconds of a backfill.

    Attributes:
        whole_s: all of it.
        node_s: waited while a request to the node was under way.
        else_s: waited while none was.
    """

    whole_s: float
    node_s: float
    else_s: float

    @property
    def busy_s(self) -> float:
        """Not waited."""
        return self.whole_s - self.node_s - self.else_s

    @classmethod
    def read(cls, path: Path) -> Self:
        """What the process has written at its end."""
        return cls(*json.loads(path.read_text()))


class Stopwatch:
    """Adds up what is waited for while it runs."""

    def __init__(self) -> None:
        self._requests = 0
        self._begun: float | None = None
        self._node_s = self._else_s = 0.0
        self.waits: Waits | None = None

    def install(self) -> None:
        """Watch the selector, the requests and the observer."""
        select = selectors.DefaultSelector.select

        @functools.wraps(select)
        def watched(selector: Any, timeout: float | None = None) -> Any:  # noqa: ANN401 - of any selector
            started, asked = time.perf_counter(), self._requests > 0
            ready = select(selector, timeout)
            if self._begun is not None:
                waited = time.perf_counter() - started
                self._node_s += waited if asked else 0
                self._else_s += 0 if asked else waited
            return ready

        selectors.DefaultSelector.select = watched  # type: ignore[method-assign, assignment]
        self._count_requests(HttpRpc)
        self._follow(LogObserver)

    def _count_requests(self, owner: Any) -> None:  # noqa: ANN401 - its method is replaced
        post = owner._post  # noqa: SLF001 - every request goes through it

        @functools.wraps(post)
        async def counted(*arguments: Any) -> Any:  # noqa: ANN401 - of a method
            self._requests += 1
            try:
                return await post(*arguments)
            finally:
                self._requests -= 1

        owner._post = counted  # noqa: SLF001

    def _follow(self, owner: Any) -> None:  # noqa: ANN401 - its method is replaced
        tell = owner.synced

        @functools.wraps(tell)
        def noted(observer: LogObserver, *, synced: bool, number: int) -> None:
            tell(observer, synced=synced, number=number)
            self._note(over=synced)

        owner.synced = noted

    def _note(self, *, over: bool) -> None:
        """Begin with the first call; end when it is `over`."""
        if self._begun is None and not over:
            self._begun, self._node_s, self._else_s = time.perf_counter(), 0.0, 0.0
        elif over and self._begun is not None and self.waits is None:
            self.waits = Waits(time.perf_counter() - self._begun, self._node_s, self._else_s)


def main() -> int:
    """Run the service measured; its exit code."""
    watch = Stopwatch()
    watch.install()
    code = service.run()
    Path(sys.argv[1]).write_text(json.dumps(watch.waits))
    return code


if __name__ == "__main__":
    sys.exit(main())

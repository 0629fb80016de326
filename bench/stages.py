"""The listener with a stopwatch on its stages: CPU time by stage of a backfill.

    .venv/bin/python -m bench.backfill --stages

Runs `listener.main` in this process after wrapping the few functions that the stages consist of; each is
called once a range, a block or a commit, so the stopwatch costs little. Garbage collection is measured beside
the stages, and counts in them too.
"""

import functools
import gc
import inspect
import json
import sys
import time
from collections.abc import Callable
from functools import cache, reduce
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import msgspec

from listener import main as service
from listener.application.history import History
from listener.application.services import follower
from listener.application.services.loading import Runs
from listener.infrastructure.blockchain import rpc, source, witness
from listener.infrastructure.columns import Columns
from listener.infrastructure.observability.observer import LogObserver
from listener.infrastructure.redis import client, store
from listener.infrastructure.redis.commands import Writes

COLLECTING: Final = "garbage collection (in all)"
REST: Final = "rest (sockets, event loop, …)"


class StageTimes(NamedTuple):
    """CPU seconds by stage, and of the whole process from the first range on."""

    stages: dict[str, float]
    whole: float

    @classmethod
    def read(cls, path: Path) -> Self:
        """What the process has written at its end."""
        return cls(*json.loads(path.read_text()))

    def per_trade(self, trades: int) -> dict[str, float]:
        """Microseconds a trade, the rest and the sum included."""
        measured = sum(seconds for name, seconds in self.stages.items() if name != COLLECTING)
        whole = {**self.stages, REST: self.whole - measured, "sum": self.whole}
        return {name: round(seconds / trades * 1e6, 2) for name, seconds in whole.items()}


class Stopwatch:
    """Adds up the CPU time of functions, each without that of measured functions that it calls.

    Attributes:
        seconds: by stage.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.begun = 0.0
        self._inner: list[float] = []
        self._collecting = 0.0

    def wrap(self, stage: str, owner: Any, name: str) -> None:  # noqa: ANN401 - a module or a class
        """Measure a function from now on."""
        method = inspect.getattr_static(owner, name)
        is_class_method = isinstance(method, classmethod)
        function: Callable[..., Any] = method.__func__ if is_class_method else getattr(owner, name)
        self.seconds.setdefault(stage, 0.0)

        @functools.wraps(function)
        def measured(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - of any function
            started = time.process_time()
            self._inner.append(0.0)
            try:
                return function(*arguments, **named)
            finally:
                whole = time.process_time() - started
                self.seconds[stage] += whole - self._inner.pop()
                if self._inner:
                    self._inner[-1] += whole

        setattr(owner, name, classmethod(measured) if is_class_method else measured)

    def decoder(self, stage: str, real: Any) -> Any:  # noqa: ANN401 - of any type
        """A decoder that is measured."""
        decoder = Decoder(real)
        self.wrap(stage, decoder, "decode")
        return decoder

    def collect(self, phase: str, _info: dict[str, int]) -> None:
        """Measure the garbage collector."""
        if phase == "start":
            self._collecting = time.process_time()
        else:
            self.seconds[COLLECTING] = (
                self.seconds.get(COLLECTING, 0.0) + time.process_time() - self._collecting
            )


class Decoder:
    """A msgspec decoder that is measured.

    Args:
        decoder: the real one.
    """

    def __init__(self, decoder: "msgspec.json.Decoder[Any]") -> None:
        self.real = decoder

    def decode(self, body: bytes) -> Any:  # noqa: ANN401 - of any decoder
        """Decode."""
        return self.real.decode(body)


FUNCTIONS: Final[tuple[tuple[str, Any, str], ...]] = (
    ("decode JSON", rpc, "result"),
    ("decode JSON", source, "result"),
    ("cut logs into columns", source, "read"),
    ("check and decode other logs", source, "own_logs"),
    ("check and decode other logs", source, "decoded"),
    ("check and decode other logs", witness, "decoded"),
    ("gather runs", Runs, "_is_enough"),
    ("gather runs", History, "of"),
    ("gather runs", History, "cut"),
    ("resolve", follower, "tokens_to_read"),
    ("resolve", follower, "resolve_blocks"),
    ("resolve", follower, "resolve_history"),
    ("fold columns into minutes", Columns, "fold"),
    ("fold minutes into candles", follower, "process_blocks"),
    ("encode", store, "encode_told"),
    ("encode", store, "rows"),
    ("encode", store, "commands"),
    ("pack for Redis", Writes, "words"),
    ("pack for Redis", client, "_Packed.pack_command"),
    ("apply to memory", follower.Follower, "_follow"),
    ("log lines", LogObserver, "committed"),
)
"""Stage, owner and name of the functions that are measured, called a few times a commit or a block."""


def measure(watch: Stopwatch) -> None:
    """Put the stopwatch on all stages."""
    for name in ("_CALL", "_BATCH"):
        setattr(rpc, name, watch.decoder("decode JSON", getattr(rpc, name)))
    typed = rpc._decoder  # noqa: SLF001 - where decoders come from
    rpc._decoder = cache(lambda kind: watch.decoder("decode JSON", typed(kind)))  # noqa: SLF001
    for stage, owner, path in FUNCTIONS:
        *classes, name = path.split(".")
        watch.wrap(stage, reduce(getattr, classes, owner), name)


def main() -> int:
    """Run the service measured; its exit code."""
    watch = Stopwatch()
    measure(watch)
    gc.callbacks.append(watch.collect)
    begun = time.process_time()
    code = service.run()
    times = StageTimes(watch.seconds, time.process_time() - begun)
    Path(sys.argv[1]).write_text(json.dumps(times))
    return code


if __name__ == "__main__":
    sys.exit(main())

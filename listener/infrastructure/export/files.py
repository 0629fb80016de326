"""What every kind of file has in common: it appears under its name whole, or not at all."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

from listener.application.rows import CandleRow
from listener.application.use_cases.present_candles import BOUGHT, COUNTS, NUMBERS

COLUMNS: Final = ("market", "time", *NUMBERS, *BOUGHT, *COUNTS)
"""Of a file, in their order."""


class CandleFile(Protocol):
    """A file that is being written."""

    def write(self, market: str, rows: Sequence[CandleRow]) -> None:
        """Add a market's candles.

        Raises:
            OSError: the file cannot be written.
        """
        ...

    def finish(self) -> None:
        """Write what is left, and what stands at the end of such a file. Raises `OSError`."""
        ...

    def close(self) -> None:
        """Let go of it, finished or not."""
        ...


About = Mapping[str, str]
"""What is said of the file as a whole, where the format has a place for it."""


@contextmanager
def put_in_place(path: Path) -> Iterator[Path]:
    """Where to write; what is there takes the place of `path` at the end, and is removed after an error."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()

"""Candles as CSV (RFC 4180): a header, times in ms, decimals exact as they are stored."""

import csv
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Final

from listener.application.rows import CandleRow
from listener.application.use_cases.present_candles import BOUGHT, COUNTS, NUMBERS
from listener.infrastructure.export.files import COLUMNS

_values: Final = attrgetter("t", *NUMBERS.values(), *BOUGHT.values(), *COUNTS.values())


class CsvFile:
    """`CandleFile` as CSV, UTF-8.

    Args:
        path: is made anew.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(COLUMNS)

    def write(self, market: str, rows: Sequence[CandleRow]) -> None:
        """See `CandleFile.write`."""
        self._writer.writerows((market, *_values(row)) for row in rows)

    def finish(self) -> None:
        """See `CandleFile.finish`."""
        self._file.flush()

    def close(self) -> None:
        """See `CandleFile.close`."""
        self._file.close()

"""Candles as Parquet, by pyarrow: an optional dependency, the extra `export`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
from pyarrow import parquet

from listener.application.rows import CandleRow
from listener.application.use_cases.present_candles import BOUGHT, COUNTS, NUMBERS, columns
from listener.infrastructure.export.files import About

ROW_GROUP: Final = 50_000
"""Candles held in memory and written together; some 25 MB."""


def schema_of(about: About, *, exact: bool) -> pa.Schema:
    """Columns and their types; decimals as text, or as double precision numbers."""
    decimal = pa.string() if exact else pa.float64()
    return pa.schema(
        [
            pa.field("market", pa.string(), nullable=False),
            pa.field("time", pa.timestamp("ms", tz="UTC"), nullable=False),
            *(pa.field(name, decimal, nullable=False) for name in NUMBERS | BOUGHT),
            *(pa.field(name, pa.int64(), nullable=False) for name in COUNTS),
        ],
        metadata=dict(about),
    )


class ParquetFile:
    """`CandleFile` as Parquet, compressed by zstd, in row groups of `ROW_GROUP` rows.

    Args:
        path: is made anew.
        about: goes into the schema's metadata.
        exact: decimals as text.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, path: Path, about: About, *, exact: bool) -> None:
        self._exact = exact
        self._schema = schema_of(about, exact=exact)
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._markets: list[str] = []
        self._rows: list[CandleRow] = []

    def write(self, market: str, rows: Sequence[CandleRow]) -> None:
        """See `CandleFile.write`."""
        self._markets += [market] * len(rows)
        self._rows += rows
        if len(self._rows) >= ROW_GROUP:
            self._flush()

    def finish(self) -> None:
        """See `CandleFile.finish`."""
        self._flush()
        self._writer.close()

    def close(self) -> None:
        """See `CandleFile.close`."""
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            table = {"market": self._markets, **columns(self._rows, exact=self._exact)}
            batch = pa.RecordBatch.from_pydict(table, schema=self._schema)
            self._writer.write_batch(batch, row_group_size=len(self._rows))
            self._markets, self._rows = [], []

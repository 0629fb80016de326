"""Files that exported candles are written to."""

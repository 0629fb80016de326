"""What a trade, a candle and a chain are. Pure: standard library only, no I/O, no clock."""

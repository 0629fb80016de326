"""0xPads Blockchain Listener: launchpad and DEX trades as candles in Redis and events for a backend."""

__version__ = "0.1.0"

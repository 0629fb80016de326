"""The one module that knows key names. Every key of a stream carries its hash tag."""

from dataclasses import dataclass

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Keys:
    """Key names of one stream.

    Public ones are described in docs/contract.md. Private ones: `sources` maps an emitter to its market,
    `undo` holds before-images by block number, `due` orders markets by when they next change without a
    trade, `closed` holds watermarks, `stream` what the stored data was made with, `outbox` and `cursor`
    the delivery.
    """

    chain_id: int

    @property
    def stream(self) -> str:
        """Name of the stream: the chain id while there is one partition."""
        return str(self.chain_id)

    def _tagged(self, kind: str) -> str:
        return f"{kind}:{{{self.stream}}}"

    def candles(self, market: str, interval: str) -> str:
        """ZSET of candles."""
        return f"candles:{{{self.stream}}}:{market}:{interval}"

    def stats(self, market: str) -> str:
        """HASH of 24 h figures."""
        return f"stats:{{{self.stream}}}:{market}"

    def trades(self, market: str) -> str:
        """LIST of trades."""
        return f"trades:{{{self.stream}}}:{market}"

    def market(self, market: str) -> str:
        """HASH of a market record."""
        return f"market:{{{self.stream}}}:{market}"

    @property
    def markets(self) -> str:
        """ZSET of market ids."""
        return self._tagged("markets")

    @property
    def head(self) -> str:
        """HASH of the committed head."""
        return self._tagged("head")

    @property
    def partitions(self) -> str:
        """STRING, number of partitions of the chain."""
        return f"partitions:{self.chain_id}"

    @property
    def sources(self) -> str:
        """HASH, private."""
        return self._tagged("sources")

    @property
    def undo(self) -> str:
        """HASH, private."""
        return self._tagged("undo")

    @property
    def due(self) -> str:
        """ZSET, private."""
        return self._tagged("due")

    @property
    def closed(self) -> str:
        """HASH, private."""
        return self._tagged("closed")

    @property
    def settings(self) -> str:
        """HASH, private."""
        return self._tagged("stream")

    @property
    def outbox(self) -> str:
        """STREAM, private."""
        return self._tagged("outbox")

    @property
    def cursor(self) -> str:
        """HASH, private."""
        return self._tagged("cursor")

    @property
    def pattern(self) -> str:
        """Glob that matches every key with the stream's tag."""
        return f"*{{{self.stream}}}*"

"""The one module that knows key names. Every key of a stream carries its hash tag."""

from dataclasses import dataclass

SCHEMA = 1
ALL_MARKETS = "*"
"""In place of a market: each."""
REMOVING = "removing"
"""The one field of a head whose stream is being removed: nothing is built on what is left of it."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Key names of one stream.

    Public ones are described in docs/contract.md. Private ones: `sources` maps an emitter to its market,
    `undo` holds before-images by block number, `due` orders markets by when they next change without a
    trade, `closed` holds watermarks, `stream` what the stored data was made with, `outbox` and `cursor`
    the delivery, `listing` and `coverage` what listing services ask for, `lease` who writes, `alertids`,
    `alertlog`, `alertversion` and `alertstates` which alert rules there are and how they stand.

    Attributes:
        generation: '' for the live one; another name stands before every key of a generation that is
            built beside it.
    """

    chain_id: int
    generation: str = ""

    @property
    def stream(self) -> str:
        """Name of the stream: the chain id while there is one partition."""
        return str(self.chain_id)

    def _tagged(self, kind: str) -> str:
        prefix = f"{self.generation}:" if self.generation else ""
        return f"{prefix}{kind}:{{{self.stream}}}"

    def candles(self, market: str, interval: str) -> str:
        """ZSET of candles."""
        return f"{self._tagged('candles')}:{market}:{interval}"

    def stats(self, market: str) -> str:
        """HASH of 24 h figures."""
        return f"{self._tagged('stats')}:{market}"

    def trades(self, market: str) -> str:
        """LIST of trades."""
        return f"{self._tagged('trades')}:{market}"

    def market(self, market: str) -> str:
        """HASH of a market record."""
        return f"{self._tagged('market')}:{market}"

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

    def cursor_of(self, consumer: str) -> str:
        """HASH, private: how far a consumer of the outbox other than the backend has come."""
        return f"{self.cursor}:{consumer}"

    def open_candles_of(self, consumer: str) -> str:
        """ZSET, private: candles that a consumer has heard of and not been told closed, by close time."""
        return f"{self.cursor_of(consumer)}:open"

    @property
    def alerts(self) -> str:
        """HASH of alert rules by id."""
        return self._tagged("alerts")

    def alert_ids(self, market: str = "") -> str:
        """ZSET, private: ids of the rules in their order; those of a market, or of `ALL_MARKETS`."""
        return f"{self._tagged('alertids')}:{market}" if market else self._tagged("alertids")

    @property
    def alert_log(self) -> str:
        """LIST, private: ids of the rules that were made or removed last, newest first."""
        return self._tagged("alertlog")

    @property
    def alert_version(self) -> str:
        """STRING, private: how often rules were made or removed."""
        return self._tagged("alertversion")

    @property
    def alert_states(self) -> str:
        """HASH, private: which rules have come true, as `<rule>:<market>`."""
        return self._tagged("alertstates")

    @property
    def listing(self) -> str:
        """ZSET, private: a final block's events for listing services, by block number."""
        return self._tagged("listing")

    @property
    def coverage(self) -> str:
        """HASH, private: which blocks `listing` covers."""
        return self._tagged("coverage")

    @property
    def lease(self) -> str:
        """STRING, private."""
        return self._tagged("lease")

    def lease_of(self, service: str) -> str:
        """STRING, private: who does the work of a service other than the writer's."""
        return f"{self.lease}:{service}"

    @property
    def webhooks(self) -> str:
        """HASH of webhook endpoints by id, private: it has their secrets."""
        return self._tagged("webhooks")

    @property
    def webhooks_revision(self) -> str:
        """STRING, private: counts changes of webhook endpoints."""
        return self._tagged("webhooksrevision")

    def webhook_state(self, endpoint: str) -> str:
        """HASH, private: how delivery to a webhook endpoint goes."""
        return f"{self._tagged('webhookstate')}:{endpoint}"

    def webhook_log(self, endpoint: str) -> str:
        """STREAM, private: a webhook endpoint's newest requests."""
        return f"{self._tagged('webhooklog')}:{endpoint}"

    @property
    def fired(self) -> str:
        """LIST of the newest alert records."""
        return self._tagged("fired")

    @property
    def pattern(self) -> str:
        """Glob that matches every key of the generation; of all generations, for the live one."""
        return f"{self.generation or '*'}{':*' if self.generation else ''}{{{self.stream}}}*"

    def beside(self, generation: str) -> "Keys":
        """Keys of another generation of the same stream."""
        return Keys(self.chain_id, generation)

"""Parts that the service and the commands beside it build alike."""

from dataclasses import dataclass
from typing import Self

from listener.application.interfaces import Clock, Observer, Witness
from listener.application.services.fetching import FetchLimits
from listener.application.services.follower import FollowerLimits
from listener.application.services.listing_reader import ListingReader
from listener.application.services.listings import Listings
from listener.application.services.recorder import FinalLedger, ListingRecorder, RecorderLimits
from listener.config.settings import Settings
from listener.infrastructure.blockchain.endpoints import Endpoints, Notices
from listener.infrastructure.blockchain.listing_source import RpcListingChain
from listener.infrastructure.blockchain.rpc import HttpRpc
from listener.infrastructure.blockchain.source import RpcChainSource
from listener.infrastructure.blockchain.venues import ALL
from listener.infrastructure.blockchain.venues.venue import Decoder, TradeLayout
from listener.infrastructure.blockchain.witness import LogsWitness, ReceiptsWitness
from listener.infrastructure.observability.metered import MeteredRpc, MeteredSource
from listener.infrastructure.observability.metrics import Metrics
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.listing import RedisListing

HOUR_S = 3_600
POLL_BESIDE_WEBSOCKET_S = 5.0
"""A subscription can die silently: the tip is asked for at least this often, and far more often without."""


@dataclass(frozen=True, slots=True)
class Node:
    """What the settings say of the chain's nodes, connected."""

    endpoints: Endpoints
    second: HttpRpc | None
    source: RpcChainSource
    witness: Witness
    listing: RpcListingChain

    @classmethod
    def connect(cls, settings: Settings, notices: Notices, metrics: Metrics | None = None) -> Self:
        """Clients only: nothing is asked yet. With `metrics` they count what they are asked."""
        timeout_s = settings.rpc_timeout_ms / 1000
        urls = (settings.blockchain_http_url, *settings.blockchain_fallback_urls)
        rpcs = [_rpc(str(url), timeout_s, metrics) for url in urls]
        endpoints = Endpoints(rpcs, settings.chain_id, notices)
        audit = settings.blockchain_audit_url
        second = _rpc(str(audit), timeout_s, metrics) if audit else None
        events = decoders()
        source = (MeteredSource if metrics else RpcChainSource)(
            endpoints, events, settings.bloom, second, settings.finality_tag, layouts=layouts()
        )
        if metrics and isinstance(source, MeteredSource):
            source.metrics = metrics
        witness = LogsWitness(second, events) if second else ReceiptsWitness(endpoints, events)
        listing = RpcListingChain(endpoints, source, events)
        return cls(endpoints, second, source, witness, listing)

    async def close(self) -> None:
        """Close connections."""
        await self.endpoints.close()
        if self.second:
            await self.second.close()

    def health(self) -> dict[str, str]:
        """State of each endpoint, by host."""
        return dict(self.endpoints.health())


def _rpc(url: str, timeout_s: float, metrics: Metrics | None) -> HttpRpc:
    return MeteredRpc(url, timeout_s, metrics) if metrics else HttpRpc(url, timeout_s)


def layouts() -> dict[str, TradeLayout]:
    """Layouts of all venues' trades by topic 0."""
    return {topic: layout for venue in ALL for topic, layout in venue.layouts.items()}


def decoders() -> dict[str, Decoder]:
    """Decoders of all venues by topic 0.

    Raises:
        ValueError: two venues claim the same topic.
    """
    table: dict[str, Decoder] = {}
    for venue in ALL:
        if table.keys() & venue.decoders.keys():
            raise ValueError(f"venue {venue.name} has an event that another venue has too")
        table |= venue.decoders
    return table


def follower_limits(settings: Settings) -> FollowerLimits:
    """Bounds of the follower."""
    return FollowerLimits(
        poll_s=max(settings.poll_interval_ms / 1000, POLL_BESIDE_WEBSOCKET_S),
        fetch=FetchLimits(settings.range_blocks, settings.history_requests),
        commit_trades=settings.batch_size,
        cached_markets=settings.market_cache,
        close_grace_ms=settings.close_grace_ms,
        stall_s=settings.stall_s,
    )


def listing_recorder(
    settings: Settings,
    node: Node,
    database: Database,
    ledger: FinalLedger,
    clock: Clock,
    observer: Observer,
) -> ListingRecorder:
    """What records final blocks for listing services."""
    records = _listing(settings, database)
    return ListingRecorder(
        ledger=ledger,
        reader=ListingReader(node.listing, records, settings.rules()),
        records=records,
        clock=clock,
        observer=observer,
        limits=RecorderLimits(settings.listing_retention_hours * HOUR_S, settings.listing_interval_ms / 1000),
    )


def listing_answers(settings: Settings, node: Node, database: Database, clock: Clock) -> Listings:
    """What listing services are answered."""
    store, rules = _listing(settings, database), settings.rules()
    return Listings(store, node.listing, ListingReader(node.listing, store, rules), rules, clock)


def _listing(settings: Settings, database: Database) -> RedisListing:
    return RedisListing(database, Keys(settings.chain_id), settings.listing_max_bytes)

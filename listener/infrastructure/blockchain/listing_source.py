"""`ListingChain` on JSON-RPC: the same checked logs as everywhere, with their transactions' places."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from eth_utils.address import is_address, to_checksum_address

from listener.application.errors import InconsistentReply
from listener.application.listing import LocatedFacts, PoolTerms
from listener.domain.value_objects import Address
from listener.infrastructure.blockchain.pool_terms import read_terms
from listener.infrastructure.blockchain.source import RpcChainSource
from listener.infrastructure.blockchain.tokens import read_supply
from listener.infrastructure.blockchain.venues.venue import Decoder
from listener.infrastructure.blockchain.wire import MOST_LOGS, Log
from listener.infrastructure.blockchain.witness import Rpc, decoded

NAMES_KEPT: Final = 65_536
"""Addresses whose checksummed form is remembered."""


class RpcListingChain:
    """Final blocks and contracts from a node.

    Every header's bloom is held against the logs, unless `BLOOM_POLICY` is `off`: listing services ask for a
    block once.

    Args:
        rpc: the node.
        source: reads and checks its logs.
        decoders: by topic 0, of all configured venues.
    """

    def __init__(self, rpc: Rpc, source: RpcChainSource, decoders: Mapping[str, Decoder]) -> None:
        self._rpc = rpc
        self._source = source
        self._decoders = decoders

    async def blocks(self, first: int, last: int) -> Sequence[LocatedFacts]:
        """See `ListingChain.blocks`."""
        found = await self._source.logs(first, last, lenient_too=True)
        return [
            LocatedFacts(block, decoded(logs, self._decoders), dict(map(_located, logs)))
            for block, logs in found
        ]

    async def terms(self, pools: Sequence[str]) -> Sequence[PoolTerms]:
        """See `ListingChain.terms`."""
        return await read_terms(self._rpc, pools)

    async def supply(self, token: Address) -> int | None:
        """See `ListingChain.supply`."""
        return await read_supply(self._rpc, token)

    def shown(self, name: str) -> str:
        """See `ListingChain.shown`."""
        return _shown(name)


@lru_cache(NAMES_KEPT)
def _shown(name: str) -> str:
    return to_checksum_address(name) if is_address(name) else name


def _located(log: Log) -> tuple[int, int]:
    """Index of a log, and of its transaction.

    Raises:
        InconsistentReply: the node does not say, or nonsense.
    """
    number, index = log.place()
    try:
        transaction = int(log.transaction_index or "", 16)
    except ValueError:
        transaction = -1
    if not 0 <= transaction < MOST_LOGS:
        raise InconsistentReply(f"block {number}: log {index} of transaction {log.transaction_index!r}")
    return index, transaction

"""What pools were made with: their fee, and which part of the reserves in their events is only virtual.

A bonding curve quotes prices from reserves that begin above what it holds. Its factory tells the difference,
the same for all of its curves and for ever (`LaunchParameters` in contracts/).
"""

from collections.abc import Sequence
from typing import Final

from eth_utils.address import is_address

from listener.application.listing import PoolTerms
from listener.domain.value_objects import ZERO_ADDRESS
from listener.infrastructure.blockchain.tokens import call, returned
from listener.infrastructure.blockchain.venues.venue import selector
from listener.infrastructure.blockchain.witness import Rpc

FACTORY: Final = selector("factory()")
PARAMETERS: Final = selector("parameters()")
WORD: Final = 32
FEE_BPS_MOST: Final = 10_000


async def read_terms(rpc: Rpc, pools: Sequence[str]) -> list[PoolTerms]:
    """Terms of pools, in their order; of one that does not tell: no fee, and reserves as they are stated.

    Raises:
        NodeUnavailable: the node, not a contract, failed.
    """
    factories = await _ask(rpc, pools, FACTORY)
    named = ["0x" + word[12:WORD].hex() if len(word) >= WORD else ZERO_ADDRESS for word in factories]
    distinct = sorted({*named} - {ZERO_ADDRESS})
    told = dict(zip(distinct, await _ask(rpc, distinct, PARAMETERS), strict=True))
    return [_terms(told.get(factory, b"")) for factory in named]


async def _ask(rpc: Rpc, contracts: Sequence[str], question: str) -> list[bytes]:
    """What contracts return; empty for one that refuses, or that is none."""
    calls = [call(contract, question) for contract in contracts if is_address(contract)]
    replies = iter(await rpc.batch(calls) if calls else ())
    return [returned(next(replies)) if is_address(contract) else b"" for contract in contracts]


def _terms(parameters: bytes) -> PoolTerms:
    """From virtual base, virtual quote, supply, threshold and fee, a word each."""
    if len(parameters) != 5 * WORD:
        return PoolTerms()
    base, quote, supply, _, fee = (
        int.from_bytes(parameters[at : at + WORD]) for at in range(0, len(parameters), WORD)
    )
    if supply > base or fee > FEE_BPS_MOST:
        return PoolTerms()
    return PoolTerms(fee, (base - supply, quote))

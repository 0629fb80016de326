"""From what logs say to the events that listing services index. Pure.

Whose events count is decided by `resolve_blocks`, as for candles: both tell of the same trades.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from listener.application.listing import ListedBlock, ListedEvent, LocatedFacts, PoolTerms
from listener.application.rules import Rules
from listener.application.use_cases.resolve_block import resolve_blocks
from listener.domain.entities import Market, TokenInfo
from listener.domain.facts import BlockFacts, Fact, Graduated, MarketAnnounced, Swapped
from listener.domain.value_objects import (
    Address,
    BlockRef,
    MarketId,
    format_decimal,
    format_units,
    ratio,
)

PLACES: Final = 50
"""Decimal places that the services read: what is less than that is zero to them, and stops their indexers."""
LEAST: Final = Decimal(1).scaleb(-PLACES)
NO_TERMS: Final = PoolTerms()


class Past(NamedTuple):
    """The registry as it was before a block: see `Registry`."""

    sources: Mapping[str, MarketId]
    markets: frozenset[MarketId]


def emitters(blocks: Iterable[LocatedFacts]) -> set[str]:
    """Whose facts there are: the pools whose markets have to be looked up to list these blocks."""
    return {fact.source for block in blocks for fact in block.facts}


def list_events(
    blocks: Sequence[LocatedFacts],
    markets: Mapping[MarketId, Market],
    terms: Mapping[str, PoolTerms],
    rules: Rules,
    shown: Callable[[str], str],
) -> list[ListedBlock]:
    """Events of final blocks, by block; blocks without any are left out.

    Left out as well are trades that a service would take for malformed: those whose price, or one of whose
    amounts, is zero at 50 decimal places.

    Args:
        blocks: contiguous but for blocks without logs of ours.
        markets: those of the `emitters`, as committed at the last of these blocks or later.
        terms: of their pools.
        rules: the settings that say whose announcements count.
        shown: how an address is written.
    """
    first = blocks[0].block.number
    pools = {market.source: market for market in markets.values()}
    past = {source: market.id for source, market in pools.items() if market.created_block < first}
    resolved = resolve_blocks(
        Past(past, frozenset(past.values())),
        [BlockFacts(block.block, tuple(_admitted(block, pools))) for block in blocks],
        _tokens(market for market in markets.values() if market.created_block >= first),
        rules,
    )
    places = {block.block.number: block.transactions for block in blocks}
    found: dict[BlockRef, list[ListedEvent]] = {}
    makers: dict[tuple[MarketId, str], Address] = {}
    for market_id, swaps in resolved.swaps.items():
        market = markets[market_id]
        for ref, swap in swaps:
            makers[market_id, swap.tx_hash] = swap.trader
            event = _trade(swap, market, terms.get(market.source, NO_TERMS), shown)
            if event is not None:
                found.setdefault(ref, []).append(event)
    for ref, market_id, end in resolved.ends:
        if end.liquidity is not None:
            market = markets[market_id]
            maker = makers.get((market_id, end.tx_hash), market.creator)
            found.setdefault(ref, []).append(_exit(end, end.liquidity, market, shown(maker), shown))
    return [
        ListedBlock(ref.number, ref.timestamp // 1000, _placed(found[ref], places[ref.number]))
        for ref in sorted(found, key=lambda ref: ref.number)
    ]


def _admitted(block: LocatedFacts, pools: Mapping[str, Market]) -> Iterator[Fact]:
    """Facts without the announcements that were refused when they were committed, whatever for."""
    for fact in block.facts:
        if isinstance(fact, MarketAnnounced):
            market = pools.get(fact.source)
            if market is None or (market.id, market.created_block) != (fact.market, block.block.number):
                continue
        yield fact


def _tokens(created: Iterable[Market]) -> dict[Address, TokenInfo]:
    """What was read of tokens when these markets were created."""
    tokens: dict[Address, TokenInfo] = {}
    for market in created:
        tokens[market.token] = TokenInfo(market.base_decimals, market.name, market.symbol)
        quote = TokenInfo(market.quote_decimals, market.quote_symbol, market.quote_symbol)
        tokens.setdefault(market.quote, quote)
    return tokens


def _placed(events: Iterable[ListedEvent], places: Mapping[int, int]) -> list[ListedEvent]:
    """Events in order, each with its transaction's place."""
    ordered = sorted(events, key=lambda event: event.event_index)
    return [event._replace(txn_index=places[event.event_index]) for event in ordered]


def _trade(
    swap: Swapped, market: Market, terms: PoolTerms, shown: Callable[[str], str]
) -> ListedEvent | None:
    """A trade; None if it is too small to be told."""
    base, quote = market.base_decimals, market.quote_decimals
    price = ratio(swap.quote, swap.base, market.price_exponent)
    if price < LEAST or not (_visible(swap.base, base) and _visible(swap.quote, quote)):
        return None
    reserves: tuple[str, str] | None = None
    if swap.reserves is not None:
        held_base, held_quote = map(operator.sub, swap.reserves, terms.virtual)
        reserves = format_units(max(held_base, 0), base), format_units(max(held_quote, 0), quote)
    return ListedEvent(
        kind="buy" if swap.is_buy else "sell",
        txn_index=0,
        event_index=swap.log_index,
        txn_id=swap.tx_hash,
        maker=shown(swap.trader),
        pair=shown(market.source),
        amount0=format_units(swap.base, base),
        amount1=format_units(swap.quote, quote),
        price=format_decimal(price),
        reserves=reserves,
    )


def _visible(units: int, decimals: int) -> bool:
    least: int = 10 ** max(decimals - PLACES, 0)
    return units >= least


def _exit(
    end: Graduated, liquidity: tuple[int, int], market: Market, maker: str, shown: Callable[[str], str]
) -> ListedEvent:
    """The liquidity that leaves a curve which has ended: nobody can trade against it any more."""
    return ListedEvent(
        kind="exit",
        txn_index=0,
        event_index=end.log_index,
        txn_id=end.tx_hash,
        maker=maker,
        pair=shown(market.source),
        amount0=format_units(liquidity[0], market.base_decimals),
        amount1=format_units(liquidity[1], market.quote_decimals),
        price="",
        reserves=("0", "0"),
    )

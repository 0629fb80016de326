"""Whose events count: from what a block's logs say to the facts of known emitters. Pure."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from listener.application.history import Emitter, History, TradeBatch
from listener.application.rules import Rules
from listener.domain.entities import Market, TokenInfo
from listener.domain.facts import BlockFacts, Graduated, Malformed, MarketAnnounced, Swapped
from listener.domain.value_objects import Address, BlockRef, MarketId, TradeId

STRANGER = "stranger"
MALFORMED = "malformed"
ZERO_AMOUNT = "zero_amount"
TOKEN_UNREADABLE = "token_unreadable"  # noqa: S105 - a reason, not a secret
MARKET_TAKEN = "market_taken"


class Registry(Protocol):
    """What was known before the blocks in question: `StreamState`, or a look back."""

    @property
    def sources(self) -> Mapping[str, MarketId]:
        """Which market an emitter's events count for."""
        ...

    @property
    def markets(self) -> Collection[MarketId]:
        """Ids that are taken."""
        ...


@dataclass(slots=True)
class Resolved:
    """The facts that count, in order, with the market they count for.

    Attributes:
        digest: of the last block's logs.
        graduated: successors.
        graduated_in: the first block that says so.
        ends: the graduations behind `graduated`, in order.
        bulk: trades that count and are not among `swaps`, and whose they are, one emitter a market.
    """

    blocks: tuple[BlockRef, ...]
    digest: str = ""
    created: dict[MarketId, Market] = field(default_factory=dict)
    sources: dict[str, MarketId] = field(default_factory=dict)
    swaps: dict[MarketId, list[tuple[BlockRef, Swapped]]] = field(default_factory=dict)
    graduated: dict[MarketId, str] = field(default_factory=dict)
    graduated_in: dict[MarketId, BlockRef] = field(default_factory=dict)
    ends: list[tuple[BlockRef, MarketId, Graduated]] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    trades: TradeBatch | None = None
    bulk: dict[MarketId, Emitter] = field(default_factory=dict)

    def touched(self) -> set[MarketId]:
        """Markets whose state is needed to go on."""
        return {*self.created, *self.swaps, *self.graduated, *self.bulk}


def tokens_to_read(state: Registry, blocks: Iterable[BlockFacts], rules: Rules) -> set[Address]:
    """Tokens whose decimals, name and symbol `resolve_blocks` will need."""
    tokens: set[Address] = set()
    for block in blocks:
        for fact in block.facts:
            if (
                isinstance(fact, MarketAnnounced)
                and fact.announcer in rules.factories
                and fact.market not in state.markets
            ):
                tokens.update(token for token in (fact.token, fact.quote) if not rules.is_native(token))
    return tokens


def resolve_blocks(
    state: Registry,
    blocks: Sequence[BlockFacts],
    tokens: Mapping[Address, TokenInfo],
    rules: Rules,
) -> Resolved:
    """Keep the facts of known emitters.

    An emitter is known if a configured factory announced it earlier on the chain or in the same
    transaction: some factories trade first and announce last.

    Args:
        state: what is committed.
        blocks: contiguous blocks after the head.
        tokens: those of `tokens_to_read` that could be read.
        rules: the settings that matter.
    """
    resolved = Resolved(tuple(block.block for block in blocks), blocks[-1].digest)
    new_sources: dict[str, MarketId] = {}
    for ref, facts, _ in blocks:
        announced: dict[str, MarketAnnounced] = {}
        for fact in facts:
            if isinstance(fact, MarketAnnounced) and _admit(fact, ref, state, resolved, tokens, rules):
                announced[fact.source] = fact
        for fact in facts:
            if isinstance(fact, MarketAnnounced):
                continue
            source = fact.source
            market_id = state.sources.get(source) or new_sources.get(source)
            if market_id is None and source in announced and _in_time(announced[source], fact):
                market_id = announced[source].market
            if market_id is not None:
                _count(fact, ref, market_id, resolved)
            elif isinstance(fact, Malformed) and source in rules.factories:
                resolved.rejected[MALFORMED] += 1
            else:
                resolved.rejected[STRANGER] += 1
        new_sources.update((source, fact.market) for source, fact in announced.items())
    return resolved


def _nobody(_market: MarketId) -> bool:
    return False


def resolve_history(
    state: Registry,
    history: History,
    tokens: Mapping[Address, TokenInfo],
    rules: Rules,
    watched: Callable[[MarketId], bool] = _nobody,
) -> Resolved:
    """The same for final blocks whose trades come in bulk.

    They stay in bulk where one look says whose all trades of an emitter are: not those from before its
    announcement, nor those of a market that has other trades here, nor those of a market whose every trade
    counts for alerts (`watched`).
    """
    if history.trades is None:
        return resolve_blocks(state, history.blocks, tokens, rules)
    single = _one_by_one(state, history.blocks, history.trades, rules, watched)
    resolved = resolve_blocks(state, history.with_swaps(single), tokens, rules)
    resolved.trades = history.trades
    for emitter, trades in history.trades.emitters().items():
        if emitter in single:
            continue
        market_id = state.sources.get(emitter.source) or resolved.sources.get(emitter.source)
        if market_id is None:
            resolved.rejected[STRANGER] += trades
        elif emitter.market not in {None, market_id}:
            resolved.rejected[MALFORMED] += trades
        else:
            resolved.bulk[market_id] = emitter
    return resolved


def _one_by_one(
    state: Registry,
    blocks: Iterable[BlockFacts],
    trades: TradeBatch,
    rules: Rules,
    watched: Callable[[MarketId], bool],
) -> set[Emitter]:
    """Emitters whose trades do not stay in bulk."""
    announced: dict[str, TradeId] = {}
    doubtful: set[str] = set()
    whose: dict[str, MarketId] = {}
    singles: list[str] = []
    for block in blocks:
        for fact in block.facts:
            if isinstance(fact, MarketAnnounced):
                if fact.announcer in rules.factories and fact.source not in state.sources:
                    if fact.source in announced:
                        doubtful.add(fact.source)
                    announced[fact.source] = TradeId(block.block.number, fact.log_index)
                    whose[fact.source] = fact.market
            elif isinstance(fact, Swapped):
                singles.append(fact.source)
    first = trades.first()
    doubtful.update(
        emitter.source for emitter, place in first.items() if place < announced.get(emitter.source, place)
    )
    market_of = {source: state.sources.get(source) or whose.get(source) for source, _ in first}
    traded = Counter(market_of[emitter.source] for emitter in first)
    traded.update(state.sources.get(source) or whose.get(source) for source in singles)
    return {
        emitter
        for emitter in first
        if emitter.source in doubtful
        or ((market := market_of[emitter.source]) is not None and (traded[market] > 1 or watched(market)))
    }


def _count(
    fact: Swapped | Graduated | Malformed, ref: BlockRef, market: MarketId, resolved: Resolved
) -> None:
    """Keep a fact of a known emitter, or count why not."""
    if isinstance(fact, Malformed) or fact.market not in {None, market}:
        resolved.rejected[MALFORMED] += 1
    elif isinstance(fact, Graduated):
        resolved.graduated[market] = fact.successor
        resolved.graduated_in.setdefault(market, ref)
        resolved.ends.append((ref, market, fact))
    elif fact.base == 0 or fact.quote == 0:
        resolved.rejected[ZERO_AMOUNT] += 1
    else:
        resolved.swaps.setdefault(market, []).append((ref, fact))


def _admit(
    fact: MarketAnnounced,
    ref: BlockRef,
    state: Registry,
    resolved: Resolved,
    tokens: Mapping[Address, TokenInfo],
    rules: Rules,
) -> bool:
    """Create the market of an announcement, or count why not."""
    if fact.announcer not in rules.factories:
        resolved.rejected[STRANGER] += 1
        return False
    if (
        fact.market in state.markets
        or fact.market in resolved.created
        or fact.source in state.sources
        or fact.source in resolved.sources
    ):
        resolved.rejected[MARKET_TAKEN] += 1
        return False
    native = TokenInfo(rules.native_decimals, rules.native_symbol, rules.native_symbol)
    base = tokens.get(fact.token)
    quote = native if rules.is_native(fact.quote) else tokens.get(fact.quote)
    if base is None or quote is None:
        resolved.rejected[TOKEN_UNREADABLE] += 1
        return False
    market = Market(
        id=fact.market,
        venue=fact.venue,
        source=fact.source,
        token=fact.token,
        quote=fact.quote,
        quote_symbol=quote.symbol,
        base_decimals=base.decimals,
        quote_decimals=quote.decimals,
        name=base.name,
        symbol=base.symbol,
        creator=fact.creator,
        created_block=ref.number,
        created_at=ref.timestamp,
    )
    resolved.created[market.id] = market
    resolved.sources[market.source] = market.id
    return True


def _in_time(announcement: MarketAnnounced, fact: Swapped | Graduated | Malformed) -> bool:
    return announcement.log_index < fact.log_index or announcement.tx_hash == fact.tx_hash

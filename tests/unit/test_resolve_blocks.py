"""Whose events count: emitters that a configured factory announced in time, and nobody else."""

from collections import Counter

import pytest

from listener.application.rules import Rules
from listener.application.state import StreamState
from listener.application.use_cases.resolve_block import (
    MALFORMED,
    MARKET_TAKEN,
    STRANGER,
    TOKEN_UNREADABLE,
    ZERO_AMOUNT,
    Resolved,
    resolve_blocks,
    tokens_to_read,
)
from listener.domain.entities import TokenInfo
from listener.domain.facts import BlockFacts
from listener.domain.value_objects import ZERO_ADDRESS, Address
from tests.fakes.build import (
    FACTORY,
    POOL,
    Maker,
    block,
    created,
    curve,
    graduate,
    malformed,
    rules,
    stream,
    swap,
    token,
    token_info,
)
from tests.fakes.build import STRANGER as STRANGER_ADDRESS

RULES = rules()
TOKENS = {Address(token(number)): token_info(number) for number in range(4)}


def known(*numbers: int) -> StreamState:
    """A stream in which these markets exist."""
    return stream(block(0), sources={curve(number): token(number) for number in numbers})


def blocks_of(*blocks: tuple[Maker, ...]) -> list[BlockFacts]:
    """Blocks 1, 2, … whose logs state these facts."""
    return [
        BlockFacts(block(number), tuple(make(i, f"block {number}") for i, make in enumerate(makers)))
        for number, makers in enumerate(blocks, start=1)
    ]


def resolve(
    state: StreamState,
    *blocks: tuple[Maker, ...],
    tokens: dict[Address, TokenInfo] | None = None,
    by: Rules = RULES,
) -> Resolved:
    """What counts in these blocks."""
    return resolve_blocks(state, blocks_of(*blocks), TOKENS if tokens is None else tokens, by)


def places(resolved: Resolved, number: int) -> list[tuple[int, int]]:
    """Block and log index of the trades that count for a market."""
    return [(ref.number, swapped.log_index) for ref, swapped in resolved.swaps.get(token(number), [])]


def test_a_known_emitter_counts() -> None:
    """A curve that the stream knows needs no announcement."""
    resolved = resolve(known(0), (swap(0), swap(0)))
    assert places(resolved, 0) == [(1, 0), (1, 1)]
    assert not resolved.rejected
    assert resolved.touched() == {token(0)}


def test_a_stranger_does_not_count() -> None:
    """Our exact event by somebody else changes nothing and is counted."""
    resolved = resolve(known(0), (swap(0, source=STRANGER_ADDRESS), graduate(1)))
    assert not resolved.touched()
    assert resolved.rejected == Counter({STRANGER: 2})


def test_a_stranger_cannot_announce() -> None:
    """A creation by an address that is no configured factory creates nothing, nor do its trades count."""
    resolved = resolve(known(), (created(0, by=STRANGER_ADDRESS), swap(0)))
    assert not resolved.created
    assert resolved.rejected == Counter({STRANGER: 2})


def test_a_creation_before_the_trade_counts() -> None:
    """The usual order: announced first, traded later in the block, whatever the transaction."""
    resolved = resolve(known(), (created(0, tx="a"), swap(0, tx="a"), swap(0, tx="b")))
    assert places(resolved, 0) == [(1, 1), (1, 2)]
    assert list(resolved.created) == [token(0)]


def test_a_creation_last_in_the_same_transaction_counts() -> None:
    """Some factories trade first and announce last: the transaction is one."""
    resolved = resolve(known(), (swap(0, tx="a"), graduate(0, tx="a"), created(0, tx="a")))
    assert places(resolved, 0) == [(1, 0)]
    assert resolved.graduated == {token(0): POOL}
    assert not resolved.rejected


def test_a_creation_later_in_another_transaction_comes_too_late() -> None:
    """Before its announcement, and outside its transaction, an emitter is a stranger."""
    resolved = resolve(known(), (swap(0, tx="a"), created(0, tx="b"), swap(0, tx="c")))
    assert places(resolved, 0) == [(1, 2)]
    assert resolved.rejected == Counter({STRANGER: 1})


def test_a_creation_in_a_later_block_comes_too_late() -> None:
    """Several blocks at once are no excuse: only what was announced before a block counts in it."""
    resolved = resolve(known(), (swap(0),), (created(0),), (swap(0),))
    assert places(resolved, 0) == [(3, 0)]
    assert resolved.rejected == Counter({STRANGER: 1})


def test_the_market_of_a_creation_says_where_it_comes_from() -> None:
    """The record holds what the token says of itself, the factory's words, and the block."""
    market = resolve(known(), (created(1),)).created[token(1)]
    assert (market.base_decimals, market.symbol, market.name) == (6, "T1", "Token 1")
    assert (market.quote, market.quote_symbol, market.quote_decimals) == (ZERO_ADDRESS, "ETH", 18)
    assert (market.source, market.token) == (curve(1), token(1))
    assert (market.created_block, market.created_at) == (1, block(1).timestamp)
    assert (market.status, market.successor) == ("trading", "")


def test_a_market_quoted_in_a_token_needs_both() -> None:
    """A quote token is read like the base token; its symbol and decimals are the market's."""
    quote = Address(token(3))
    makers = (created(0, quote=quote),)
    assert tokens_to_read(known(), blocks_of(makers), RULES) == {token(0), quote}
    market = resolve(known(), makers).created[token(0)]
    assert (market.quote_symbol, market.quote_decimals) == ("T3", 6)
    unreadable = resolve(known(), makers, tokens={Address(token(0)): token_info(0)})
    assert unreadable.rejected == Counter({TOKEN_UNREADABLE: 1})


def test_the_chains_own_coin_is_not_read() -> None:
    """The zero address is no contract that could be asked."""
    assert tokens_to_read(known(), blocks_of((created(0),)), RULES) == {token(0)}


@pytest.mark.parametrize(
    "makers", [(created(0, by=STRANGER_ADDRESS),), (created(1),), (swap(0), graduate(0), malformed(FACTORY))]
)
def test_nothing_is_read_in_vain(makers: tuple[Maker, ...]) -> None:
    """Tokens of strangers and of markets that exist are not asked for."""
    assert tokens_to_read(known(1), blocks_of(makers), RULES) == set()


@pytest.mark.parametrize(
    "second",
    [
        created(0),
        created(0, source=curve(9)),
        created(9, market_of=0),
        created(1, source=curve(0)),
    ],
)
def test_the_first_claim_wins(second: Maker) -> None:
    """A second claim of a token or of a curve is refused and counted: on the chain, in a block, in a run."""
    committed = resolve(known(0), (second,))
    assert not committed.created
    assert committed.rejected == Counter({MARKET_TAKEN: 1})
    for blocks in [(created(0), second)], [(created(0),), (second,)]:
        resolved = resolve(known(), *blocks)
        assert [(m.id, m.source) for m in resolved.created.values()] == [(token(0), curve(0))]
        assert resolved.rejected == Counter({MARKET_TAKEN: 1})


def test_a_second_claim_does_not_redirect_trades() -> None:
    """Trades of the first curve still count, trades of the pretender never do."""
    resolved = resolve(known(0), (created(0, source=curve(9)), swap(0), swap(9, market_of=token(0))))
    assert places(resolved, 0) == [(1, 1)]
    assert resolved.rejected == Counter({MARKET_TAKEN: 1, STRANGER: 1})


def test_an_unreadable_token_gets_no_market() -> None:
    """Decimals are never guessed: no market, and its trades are those of a stranger."""
    resolved = resolve(known(), (created(0), swap(0)), tokens={})
    assert not resolved.touched()
    assert resolved.rejected == Counter({TOKEN_UNREADABLE: 1, STRANGER: 1})


@pytest.mark.parametrize(("base", "quote"), [(0, 1), (1, 0), (0, 0)])
def test_a_zero_amount_makes_no_trade(base: int, quote: int) -> None:
    """Nothing is divided by zero: the trade is counted as rejected, the others stay."""
    resolved = resolve(known(0), (swap(0, base, quote), swap(0)))
    assert places(resolved, 0) == [(1, 1)]
    assert resolved.rejected == Counter({ZERO_AMOUNT: 1})


@pytest.mark.parametrize("maker", [swap(0, market_of=token(1)), malformed(curve(0))])
def test_a_log_that_contradicts_itself_is_malformed(maker: Maker) -> None:
    """A known curve that names another market, or whose log does not decode, is not believed."""
    resolved = resolve(known(0, 1), (maker,))
    assert not resolved.touched()
    assert resolved.rejected == Counter({MALFORMED: 1})


def test_a_malformed_log_of_a_stranger_is_a_strangers() -> None:
    """Anybody can emit nonsense with our topics; it says nothing about our venues."""
    assert resolve(known(0), (malformed(STRANGER_ADDRESS),)).rejected == Counter({STRANGER: 1})


def test_a_malformed_log_of_a_factory_is_malformed() -> None:
    """A configured factory is no stranger: that its creation does not decode must be seen as such."""
    assert resolve(known(0), (malformed(FACTORY),)).rejected == Counter({MALFORMED: 1})


def test_a_log_may_leave_its_market_out() -> None:
    """Where an event names no market, its emitter decides."""

    def unnamed(log_index: int, salt: str) -> object:
        return swap(0)(log_index, salt)._replace(market=None)  # type: ignore[union-attr]

    assert places(resolve(known(0), (unnamed,)), 0) == [(1, 0)]  # type: ignore[arg-type]


def test_several_factories_count_alike() -> None:
    """Each configured factory may announce."""
    both = rules(factories=frozenset({FACTORY, STRANGER_ADDRESS}))
    resolved = resolve(known(), (created(0), created(1, by=STRANGER_ADDRESS)), by=both)
    assert set(resolved.created) == {token(0), token(1)}


def test_nothing_is_read_or_changed_but_the_answer() -> None:
    """The stream is as it was: resolving is pure."""
    state = known(1)
    resolve(state, (created(0), swap(0), swap(1)))
    assert state == known(1)

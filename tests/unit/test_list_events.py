"""From facts to listed events: whose count, what they say, and what is left out."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.application.listing import (
    Asset,
    ListedBlock,
    ListedEvent,
    LocatedFacts,
    Pair,
    PoolTerms,
)
from listener.application.use_cases.list_events import PLACES, emitters, list_events
from listener.application.use_cases.present_listing import (
    Flavour,
    Record,
    asset_record,
    event_records,
    pair_record,
)
from listener.domain.entities import Market
from listener.domain.facts import BlockFacts
from listener.domain.value_objects import BlockRef
from tests.fakes.build import (
    CREATOR,
    ETHER,
    STRANGER,
    TRADER,
    Maker,
    created,
    curve,
    graduate,
    market,
    rules,
    swap,
    token,
)
from tests.fakes.chain import LocalChain

BY: Final = rules()


def located(*logs: Maker) -> tuple[BlockRef, LocatedFacts]:
    """A block whose logs are those of transactions 3, 4, …, by the order of their first log."""
    chain = LocalChain()
    ref = chain.mine(*logs)
    facts: BlockFacts = chain.blocks[-1]
    hashes = list(dict.fromkeys(fact.tx_hash for fact in facts.facts))
    return ref, LocatedFacts(
        ref, facts.facts, {fact.log_index: 3 + hashes.index(fact.tx_hash) for fact in facts.facts}
    )


def found(
    *logs: Maker, markets: tuple[Market, ...] = (), terms: PoolTerms | None = None
) -> list[ListedEvent]:
    """Events of one block, number 1."""
    known = {one.id: one for one in markets or (market(0, created_block=0),)}
    blocks = list_events(
        [located(*logs)[1]],
        known,
        {one.source: terms for one in known.values()} if terms else {},
        BY,
        str.upper,
    )
    return [event for block in blocks for event in block.events]


def test_a_buy() -> None:
    """Amounts in whole tokens, the exact price, the pool's own reserves, places in block and transaction."""
    logs = [
        swap(0, source=STRANGER),
        swap(0, 3 * ETHER, ETHER // 2, reserves=(7 * ETHER, 5 * ETHER), tx="one"),
    ]
    terms = PoolTerms(100, (2 * ETHER, 4 * ETHER))
    (event,) = found(*logs, terms=terms)
    ref, block = located(*logs)
    assert event == ListedEvent(
        kind="buy",
        txn_index=4,
        event_index=1,
        txn_id=block.facts[1].tx_hash,
        maker=TRADER.upper(),
        pair=curve(0).upper(),
        amount0="3",
        amount1="0.5",
        price="0.166666666666666666666667",
        reserves=("5", "1"),
    )
    listed = list_events([block], {token(0): market(0, created_block=0)}, {}, BY, str.upper)
    assert (listed[0].number, listed[0].time_s) == (ref.number, ref.timestamp // 1000)
    assert listed[0].events[0].reserves == ("7", "5"), "without terms: as the event states them"


def test_reserves_are_never_negative() -> None:
    """Terms that do not fit an event make a reserve zero, not less."""
    (event,) = found(swap(0, reserves=(1, 1)), terms=PoolTerms(0, (5, 5)))
    assert event.reserves == ("0", "0")


def test_an_end_takes_the_liquidity_out() -> None:
    """By whoever made the last trade, in the same transaction; nothing is left."""
    trade, end = found(swap(0, tx="last"), graduate(0, tx="last", liquidity=(2 * ETHER, ETHER // 4)))
    assert (trade.kind, end.kind) == ("buy", "exit")
    assert trade.txn_index == end.txn_index
    assert (end.amount0, end.amount1, end.reserves) == ("2", "0.25", ("0", "0"))
    assert end.maker == TRADER.upper()
    (alone,) = found(graduate(0))
    assert alone.maker == CREATOR.upper()


def test_an_end_that_tells_no_amounts_is_no_event() -> None:
    """There is nothing that could be said of it."""

    def quiet(log_index: int, salt: str) -> object:
        return graduate(0)(log_index, salt)._replace(liquidity=None)  # type: ignore[union-attr, call-arg]

    assert found(quiet) == []  # type: ignore[arg-type]


def test_created_in_these_blocks() -> None:
    """A market's trades count from its announcement, or from its transaction's beginning."""
    fresh = market(0, created_block=1)
    assert found(swap(0, tx="early"), created(0, tx="late"), markets=(fresh,)) == []
    assert len(found(swap(0, tx="one"), created(0, tx="one"), markets=(fresh,))) == 1
    assert len(found(created(0, tx="one"), swap(0, tx="two"), markets=(fresh,))) == 1


def test_a_market_that_is_not_stored_does_not_count() -> None:
    """An announcement that was refused, for its token for example, is refused here."""
    assert found(created(1), swap(1)) == []


def test_a_second_claim_does_not_count() -> None:
    """Neither of a market of before, nor of one created in these blocks, nor as another's quote token."""
    again = [created(0, source=curve(9)), swap(0, source=curve(9))]
    assert found(*again) == []
    assert found(created(0), *again, markets=(market(0, created_block=1),)) == []
    quoted = market(1, created_block=1, quote=market(0).token)
    both = (market(0, created_block=0), quoted)
    assert found(created(1, quote=market(0).token), *again, markets=both) == []


def test_what_was_refused_stays_refused() -> None:
    """Of two announcements of a market the one counts that was committed, whichever came first."""
    chain, source = LocalChain(), curve(9)
    refs = [
        chain.mine(created(0, source=source), swap(0, source=source)),
        chain.mine(created(0), swap(0)),
        chain.mine(swap(0, source=source), swap(0)),
    ]
    blocks = [LocatedFacts(facts.block, facts.facts, {0: 0, 1: 0}) for facts in chain.blocks[1:]]
    later = market(0, created_block=refs[1].number)
    listed = list_events(blocks, {later.id: later}, {}, BY, str)
    assert [(block.number, event.event_index) for block in listed for event in block.events] == [
        (refs[1].number, 1),
        (refs[2].number, 1),
    ]


def test_a_market_counts_from_the_announcement_that_was_committed() -> None:
    """A curve that was announced twice, at first in vain, has no trades of before."""
    chain = LocalChain()
    chain.mine(created(0), swap(0))
    second = chain.mine(created(0), swap(0))
    blocks = [LocatedFacts(facts.block, facts.facts, {0: 0, 1: 0}) for facts in chain.blocks[1:]]
    later = market(0, created_block=second.number)
    (block,) = list_events(blocks, {later.id: later}, {}, BY, str)
    assert block.number == second.number


def test_what_is_looked_up() -> None:
    """Everybody who emits."""
    block = located(swap(0), created(1), graduate(2))[1]
    assert emitters([block]) == {curve(0), curve(1), curve(2)}


@pytest.mark.parametrize(
    ("decimals", "base", "quote", "listed"),
    [
        (18, ETHER, 1, True),
        (18, 10**40, 1, True),
        (18, 10**50, 1, True),
        (18, 2 * 10**50, 1, False),
        (60, 10**10, 10**18, True),
        (60, 10**10 - 1, 10**18, False),
    ],
)
def test_what_is_zero_at_fifty_places_is_left_out(decimals: int, base: int, quote: int, listed: bool) -> None:
    """An indexer that reads a zero stops: such a trade is not told."""
    tiny = market(0, created_block=0, base_decimals=decimals)
    assert len(found(swap(0, base, quote), markets=(tiny,))) == listed


@given(
    base=st.integers(0, 2**256 - 1),
    quote=st.integers(0, 2**256 - 1),
    decimals=st.integers(0, 77),
    buy=st.booleans(),
)
def test_nothing_is_zero_and_one_goes_in(base: int, quote: int, decimals: int, buy: bool) -> None:
    """For any amounts: exactly one way in and one out, none of them nor the price zero at 50 places."""
    one = market(0, created_block=0, base_decimals=decimals)
    events = found(swap(0, base, quote, buy=buy, reserves=None), markets=(one,))
    for record in event_records([ListedBlock(1, 1, events)], Flavour.DEX_SCREENER):
        sides = {name: record[name] for name in record if name.startswith("asset")}
        assert set(sides) == ({"asset0Out", "asset1In"} if buy else {"asset0In", "asset1Out"})
        for text in (*sides.values(), record["priceNative"]):
            whole, _, fraction = str(text).partition(".")
            assert int(whole + fraction[:PLACES]) > 0
        assert "reserves" not in record


def told(flavour: Flavour, reserves: tuple[str, str] | None) -> list[Record]:
    """A sale."""
    event = ListedEvent("sell", 1, 2, "0xt", "0xm", "0xp", "3", "4", "1.5", reserves)
    return event_records([ListedBlock(7, 9, [event])], flavour)


def test_both_flavours() -> None:
    """Where they differ: decimals, creator, and events without reserves."""
    without = {
        "block": {"blockNumber": 7, "blockTimestamp": 9},
        "eventType": "swap",
        "txnId": "0xt",
        "txnIndex": 1,
        "eventIndex": 2,
        "maker": "0xm",
        "pairId": "0xp",
        "asset0In": "3",
        "asset1Out": "4",
        "priceNative": "1.5",
    }
    reserves = {"reserves": {"asset0": "5", "asset1": "0"}}
    for flavour in Flavour:
        assert told(flavour, ("5", "0")) == [without | reserves]
    assert told(Flavour.DEX_SCREENER, None) == [without]
    assert told(Flavour.GECKO_TERMINAL, None) == []
    asset, plain = Asset("0xa", "Name", "N", 6, "12.5"), {"id": "0xa", "name": "Name", "symbol": "N"}
    assert asset_record(asset, Flavour.DEX_SCREENER) == plain | {"totalSupply": "12.5"}
    assert asset_record(asset._replace(supply=""), Flavour.GECKO_TERMINAL) == plain | {"decimals": 6}
    pair = Pair("0xp", "curve", "0xa", "0xb", 5, 6, "0xt", "0xc", 100)
    first = pair_record(pair, Flavour.DEX_SCREENER)
    assert first == {
        "id": "0xp",
        "dexKey": "curve",
        "asset0Id": "0xa",
        "asset1Id": "0xb",
        "createdAtBlockNumber": 5,
        "createdAtBlockTimestamp": 6,
        "createdAtTxnId": "0xt",
        "feeBps": 100,
    }
    assert pair_record(pair, Flavour.GECKO_TERMINAL) == first | {"creator": "0xc"}
    bare = pair_record(pair._replace(txn_id="", fee_bps=None), Flavour.DEX_SCREENER)
    assert bare == {k: v for k, v in first.items() if k not in {"createdAtTxnId", "feeBps"}}

"""Our own launchpad: a factory that creates one curve contract per token. See contracts/."""

from collections.abc import Mapping
from typing import ClassVar, Final

from listener.domain.facts import Graduated, MarketAnnounced, Swapped
from listener.domain.value_objects import ZERO_ADDRESS, Address, MarketId
from listener.infrastructure.blockchain.venues.venue import (
    Decoder,
    TradeLayout,
    boolean,
    expect_texts,
    expect_topics,
    topic,
    topic_address,
    words,
)
from listener.infrastructure.blockchain.wire import Log

NAME: Final = "bonding_curve"

CURVE_CREATED: Final = topic("CurveCreated(address,address,address,string,string)")
TRADE: Final = topic("Trade(address,address,bool,uint256,uint256,uint256,uint256,uint256)")
GRADUATED: Final = topic("Graduated(address,address,uint256,uint256)")


def curve_created(log: Log) -> MarketAnnounced:
    """`CurveCreated(token indexed, curve indexed, creator indexed, name, symbol)`, by the factory."""
    expect_topics(log, 4)
    expect_texts(log, 2)
    token = topic_address(log, 1)
    return MarketAnnounced(
        announcer=_emitter(log),
        log_index=int(log.log_index, 16),
        tx_hash=log.transaction_hash,
        venue=NAME,
        market=MarketId(token),
        token=token,
        quote=ZERO_ADDRESS,
        source=topic_address(log, 2),
        creator=topic_address(log, 3),
    )


def trade(log: Log) -> Swapped:
    """`Trade(token indexed, trader indexed, isBuy, base, quote, fee, reserveBase, reserveQuote)`.

    `quote` is without fee; reserves are virtual, after the trade.
    """
    is_buy, base, quote, fee, reserve_base, reserve_quote = words(log, 3, 6)
    return Swapped(
        source=_emitter(log),
        log_index=int(log.log_index, 16),
        tx_hash=log.transaction_hash,
        market=MarketId(topic_address(log, 1)),
        is_buy=boolean(is_buy),
        trader=topic_address(log, 2),
        base=base,
        quote=quote,
        fee=fee,
        reserves=(reserve_base, reserve_quote),
    )


def graduated(log: Log) -> Graduated:
    """`Graduated(token indexed, pool indexed, baseLiquidity, quoteLiquidity)`."""
    base, quote = words(log, 3, 2)
    pool = topic_address(log, 2)
    return Graduated(
        source=_emitter(log),
        log_index=int(log.log_index, 16),
        tx_hash=log.transaction_hash,
        market=MarketId(topic_address(log, 1)),
        successor="" if pool == ZERO_ADDRESS else pool,
        liquidity=(base, quote),
    )


def _emitter(log: Log) -> Address:
    return Address(log.address.lower())


class BondingCurve:
    """The venue's event table."""

    name: ClassVar[str] = NAME
    decoders: ClassVar[Mapping[str, Decoder]] = {
        CURVE_CREATED: curve_created,
        TRADE: trade,
        GRADUATED: graduated,
    }
    layouts: ClassVar[Mapping[str, TradeLayout]] = {
        TRADE: TradeLayout(
            topics=3, words=6, market=1, trader=2, is_buy=0, base=1, quote=2, fee=3, reserves=(4, 5)
        ),
    }

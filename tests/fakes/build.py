"""Short ways to say what a test is about: rules, trades, and what the logs of a block state."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final

from listener.application.changes import Head
from listener.application.rules import Finality, Rules
from listener.application.state import StreamState, Written
from listener.domain.entities import Market, TokenInfo, Trade
from listener.domain.facts import Fact, Graduated, Malformed, MarketAnnounced, Swapped
from listener.domain.value_objects import (
    DAY_MS,
    ZERO_ADDRESS,
    Address,
    BlockRef,
    Interval,
    MarketId,
    Price,
)

ETHER: Final = 10**18
MONDAY_MS: Final = 1_767_571_200_000
"""2026-01-05 00:00 UTC."""
CHAIN_ID: Final = 31337
FACTORY: Final = Address("0x" + "fa" * 20)
STRANGER: Final = Address("0x" + "66" * 20)
CREATOR: Final = Address("0x" + "cc" * 20)
TRADER: Final = Address("0x" + "dd" * 20)
POOL: Final = Address("0x" + "99" * 20)

Maker = Callable[[int, str], Fact]
"""Makes a fact from its log index and from the salt of its block."""


def digest(*parts: object) -> str:
    """A hash that differs with its parts."""
    return "0x" + sha256("/".join(map(str, parts)).encode()).hexdigest()


def token(number: int) -> MarketId:
    """Address of token `number`, which is also the id of its market."""
    return MarketId(f"0x{0xA0000 + number:040x}")


def curve(number: int) -> Address:
    """Address of the curve of token `number`."""
    return Address(f"0x{0xC0000 + number:040x}")


def token_info(number: int) -> TokenInfo:
    """What token `number` says of itself."""
    return TokenInfo(18 if number % 2 == 0 else 6, f"Token {number}", f"T{number}")


def rules(*names: str, **changes: Any) -> Rules:
    """Rules with a one-minute interval and the others named."""
    intervals = tuple(Interval.parse(name) for name in ("1m", *(names or ("5m", "1h", "1d", "1w"))))
    usual = Rules(
        intervals=intervals,
        published=frozenset(interval.name for interval in intervals),
        price_mode="execution",
        retention_ms={},
        trades_kept=200,
        finality=Finality(8),
        factories=frozenset({FACTORY}),
    )
    return replace(usual, **changes)


def market(number: int = 0, **changes: Any) -> Market:
    """The market of token `number`."""
    info = token_info(number)
    usual = Market(
        id=token(number),
        venue="bonding_curve",
        source=curve(number),
        token=Address(token(number)),
        quote=ZERO_ADDRESS,
        quote_symbol="ETH",
        base_decimals=info.decimals,
        quote_decimals=18,
        name=info.name,
        symbol=info.symbol,
        creator=CREATOR,
        created_block=1,
        created_at=MONDAY_MS,
    )
    return replace(usual, **changes)


def block(number: int = 1, salt: object = "", parent: str | None = None, time: int = MONDAY_MS) -> BlockRef:
    """A block that stands alone."""
    return BlockRef(number, digest(number, salt), parent or digest(number - 1, salt), time)


def trade(
    number: int = 1,
    log_index: int = 0,
    price: Price | str = "1",
    *,
    base: int = ETHER,
    quote: int = ETHER,
    buy: bool = True,
    time: int = MONDAY_MS,
) -> Trade:
    """A trade of market 0."""
    reserves = Decimal(price).as_integer_ratio()[::-1]
    return Trade(
        token(0),
        number,
        log_index,
        digest(number, ""),
        digest(number, log_index),
        time,
        buy,
        TRADER,
        base,
        quote,
        None,
        reserves,
        exponent=0,
        by_reserves=True,
    )


def head(ref: BlockRef, *, gen: int = 1, epoch: int = 1, seq: int = 0, as_of: int | None = None) -> Head:
    """A head at `ref`."""
    return Head(
        ref.number,
        ref.hash,
        ref.timestamp,
        ref.timestamp if as_of is None else as_of,
        gen,
        epoch,
        seq,
    )


def stream(base: BlockRef, **changes: Any) -> StreamState:
    """A stream that begins with `base` and owes nobody a resync."""
    from collections import deque  # noqa: PLC0415 - only here

    usual: dict[str, Any] = {
        "base": base.number,
        "head": head(base),
        "window": deque([Written(base, {})]),
        "sources": {},
        "closed": {},
        "resync_owed": False,
    }
    return StreamState(**usual | changes)


def _tx(salt: str, log_index: int, label: str | None) -> str:
    return digest("tx", salt, log_index if label is None else label)


def created(
    number: int,
    *,
    by: Address = FACTORY,
    market_of: int | None = None,
    source: str | None = None,
    quote: Address = ZERO_ADDRESS,
    tx: str | None = None,
) -> Maker:
    """The factory says that it created the market of token `number`."""

    def make(log_index: int, salt: str) -> MarketAnnounced:
        its_token = token(number if market_of is None else market_of)
        return MarketAnnounced(
            by,
            log_index,
            _tx(salt, log_index, tx),
            "bonding_curve",
            its_token,
            Address(its_token),
            quote,
            source or curve(number),
            CREATOR,
        )

    return make


def swap(
    number: int,
    base: int = ETHER,
    quote: int = ETHER,
    *,
    buy: bool = True,
    source: str | None = None,
    market_of: MarketId | None = None,
    reserves: tuple[int, int] | None = (2 * ETHER, ETHER),
    fee: int | None = 0,
    tx: str | None = None,
) -> Maker:
    """A trade on the curve of token `number`."""

    def make(log_index: int, salt: str) -> Swapped:
        return Swapped(
            source or curve(number),
            log_index,
            _tx(salt, log_index, tx),
            token(number) if market_of is None else market_of,
            buy,
            TRADER,
            base,
            quote,
            fee,
            reserves,
        )

    return make


def graduate(
    number: int, successor: str = POOL, tx: str | None = None, liquidity: tuple[int, int] = (1, 2)
) -> Maker:
    """The curve of token `number` has ended."""

    def make(log_index: int, salt: str) -> Graduated:
        tx_hash = _tx(salt, log_index, tx)
        return Graduated(curve(number), log_index, tx_hash, token(number), successor, liquidity)

    return make


def malformed(source: str) -> Maker:
    """A log of `source` with a topic of ours that does not decode."""

    def make(log_index: int, salt: str) -> Malformed:
        return Malformed(source, log_index, _tx(salt, log_index, None), "0 topics, expected 3")

    return make


RETENTION: Final = {"1m": 3 * DAY_MS, "5m": 10 * DAY_MS}
"""Short enough for tests to run past it."""

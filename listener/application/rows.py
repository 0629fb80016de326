"""Candles, trades and alerts as the public contract has them: what is stored, told and read."""

import msgspec


class CandleRow(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A candle, its fields in the contract's order.

    Attributes:
        pc: None: the market's first candle.
        f: None, like `L`: no trade, the bucket was filled.
    """

    t: int
    o: str
    h: str
    l: str
    c: str
    pc: str | None = None
    v: str
    q: str
    V: str
    Q: str
    n: int
    N: int
    f: str | None = None
    L: str | None = None


class TradeRow(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A trade, its fields in the contract's order.

    Attributes:
        sp: None: the reserves after it are not known.
        fee: None: its venue does not say.
    """

    id: str
    s: str
    t: int
    b: int
    bh: str
    li: int
    tx: str
    side: str
    trader: str
    p: str
    xp: str
    sp: str | None = None
    v: str
    q: str
    fee: str | None = None


class AlertRow(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """An alert, its fields in the contract's order; what does not apply is None."""

    id: str
    rule: str
    kind: str
    s: str
    b: int
    bh: str
    t: int
    trade: str | None = None
    value: str | None = None
    threshold: str | None = None
    windowMs: int | None = None  # noqa: N815 - the contract's name
    retracted: bool = False

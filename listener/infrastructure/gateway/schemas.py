"""What answers look like, for `/openapi.json`. Answers are not built with these: they come as stored."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Decimal = Annotated[str, Field(pattern=r"^-?\d+(\.\d+)?$", examples=["0.0000000015"])]
Millis = Annotated[int, Field(ge=0, description="Unix milliseconds", examples=[1767225600000])]
Count = Annotated[int, Field(ge=0)]


class Answer(BaseModel):
    """Fields may be added; those that are here stay."""

    model_config = ConfigDict(extra="allow")


class ErrorDetail(BaseModel):
    """What is wrong."""

    code: str = Field(description="a word for programs", examples=["not_found"])
    message: str = Field(description="a sentence for people")


class ErrorBody(BaseModel):
    """Every error."""

    error: ErrorDetail


class Stats(Answer):
    """Rolling 24 h figures."""

    openTime: Millis  # noqa: N815 - names of the public contract, here and below
    closeTime: Millis  # noqa: N815
    openPrice: Decimal  # noqa: N815
    highPrice: Decimal  # noqa: N815
    lowPrice: Decimal  # noqa: N815
    lastPrice: Decimal  # noqa: N815
    priceChange: Decimal  # noqa: N815
    priceChangePercent: Decimal  # noqa: N815
    volume: Decimal
    quoteVolume: Decimal  # noqa: N815
    count: Count
    buyCount: Count  # noqa: N815
    sellCount: Count  # noqa: N815
    buyVolume: Decimal  # noqa: N815
    sellVolume: Decimal  # noqa: N815
    weightedAvgPrice: Decimal | None = None  # noqa: N815


class Market(Answer):
    """A market's record and its 24 h figures (null before the first trade)."""

    s: str = Field(description="market id")
    venue: str
    token: str
    quote: str
    quoteSymbol: str  # noqa: N815
    baseDecimals: Count  # noqa: N815
    quoteDecimals: Count  # noqa: N815
    name: str
    symbol: str
    creator: str
    createdBlock: Count  # noqa: N815
    createdAt: Millis  # noqa: N815
    status: str
    successor: str
    emitter: str
    stats: Stats | None


class Position(Answer):
    """How new an answer is: it holds every change up to this row of the stream, maybe more."""

    epoch: Count
    seq: Count


class MarketPage(Position):
    """A page of markets."""

    items: list[Market]
    total: Count = Field(description="markets that match")
    complete: bool = Field(description="false while markets are still being loaded, just after the start")
    cursor: str | None = Field(description="for the next page; null: this is the last one")


class Candle(Answer):
    """One bucket, as in the public contract. Filled ones have no `f` and `L`."""

    t: Millis
    o: Decimal
    h: Decimal
    l: Decimal
    c: Decimal
    pc: Decimal | None = None
    v: Decimal
    q: Decimal
    V: Decimal
    Q: Decimal
    n: Count
    N: Count
    f: str | None = None
    L: str | None = None


class CandleList(Position):
    """Candles, ascending."""

    s: str
    i: str
    items: list[Candle]


CcxtRow = Annotated[list[float], Field(min_length=6, max_length=6)]
BinanceRow = Annotated[list[int | str], Field(min_length=12, max_length=12)]


class Trade(Answer):
    """One trade, as in the public contract."""

    id: str
    s: str
    t: Millis
    b: Count
    bh: str
    li: Count
    tx: str
    side: str
    trader: str
    p: Decimal
    xp: Decimal
    sp: Decimal | None = None
    v: Decimal
    q: Decimal
    fee: Decimal | None = None


class TradeList(Position):
    """The newest trades, newest first."""

    s: str
    items: list[Trade]


class StatsReply(Position):
    """24 h figures of a market; null before the first trade."""

    s: str
    stats: Stats | None


class Config(Position):
    """What is served."""

    chainId: Count  # noqa: N815
    intervals: list[str]
    number: Count = Field(description="the committed head's block")
    asOf: Millis  # noqa: N815

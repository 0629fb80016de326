"""What rules and alerts look like: for `/openapi.json`, and for what is asked. Names are the contract's."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from listener.domain.alerts import NOTE_CHARACTERS_MAX, WINDOWS_MS, AlertKind
from listener.domain.value_objects import MINUTE_MS
from listener.infrastructure.gateway.schemas import Answer, Count, Decimal, Millis, Position

MARKET_PATTERN: Final = r"^[0-9A-Za-z_.:-]{1,100}$"

Amount = Annotated[str, Field(pattern=r"^[0-9]{1,40}(\.[0-9]{1,40})?$")]
"""A decimal that is not negative. That it is not 0 either, where it must not be, is looked at afterwards."""
Repeat = Annotated[bool, Field(description="may come true again; otherwise once, for each market once")]
Hysteresis = Annotated[
    Amount,
    Field(
        description="with `repeat`: per cent of the threshold to go back before it may come true again",
        examples=["2"],
    ),
]


class NewRule(BaseModel):
    """What all rules have."""

    model_config = ConfigDict(extra="forbid")

    market: Annotated[
        str | None, Field(pattern=MARKET_PATTERN, description="null: each market by itself")
    ] = None
    note: Annotated[str | None, Field(max_length=NOTE_CHARACTERS_MAX, description="for people")] = None


class NewPriceRule(NewRule):
    """A trade at the threshold or beyond."""

    kind: Literal[AlertKind.PRICE_ABOVE, AlertKind.PRICE_BELOW]
    threshold: Annotated[Amount, Field(description="price, quote per base", examples=["0.0000000015"])]
    repeat: Repeat = False
    hysteresis: Hysteresis = "0"


class NewChangeRule(NewRule):
    """The price has moved within a window."""

    kind: Literal[AlertKind.CHANGE]
    threshold: Annotated[
        str,
        Field(
            pattern=r"^-?[0-9]{1,40}(\.[0-9]{1,40})?$",
            description="per cent: above 0 a rise, below 0 a fall, and above -100",
            examples=["25", "-10"],
        ),
    ]
    windowMs: Annotated[  # noqa: N815 - names of the public contract, here and below
        int, Field(ge=MINUTE_MS, le=WINDOWS_MS[AlertKind.CHANGE], multiple_of=MINUTE_MS)
    ]
    repeat: Repeat = False
    hysteresis: Hysteresis = "0"


class NewVolumeRule(NewRule):
    """A window has so many times the volume that is usual."""

    kind: Literal[AlertKind.VOLUME_SPIKE]
    threshold: Annotated[Amount, Field(description="so many times the usual volume", examples=["5"])]
    windowMs: Annotated[  # noqa: N815
        int, Field(ge=MINUTE_MS, le=WINDOWS_MS[AlertKind.VOLUME_SPIKE], multiple_of=MINUTE_MS)
    ]
    repeat: Repeat = False
    hysteresis: Hysteresis = "0"


class NewTradeRule(NewRule):
    """A single trade of that size."""

    kind: Literal[AlertKind.TRADE_SIZE]
    threshold: Annotated[Amount, Field(description="quote amount, in whole tokens", examples=["10"])]
    repeat: Repeat = False


class NewMarketRule(NewRule):
    """A market is created, or graduates."""

    kind: Literal[AlertKind.MARKET_CREATED, AlertKind.GRADUATED]
    repeat: Repeat = False


NewAlertRule = Annotated[
    NewPriceRule | NewChangeRule | NewVolumeRule | NewTradeRule | NewMarketRule, Field(discriminator="kind")
]


class Rule(Answer):
    """What is waited for."""

    id: str
    kind: AlertKind
    market: str | None = Field(None, description="absent: each market by itself")
    threshold: Decimal | None = None
    windowMs: Count | None = None  # noqa: N815
    repeat: bool
    hysteresis: Decimal
    since: Count = Field(description="blocks above this one count")
    createdAt: Millis  # noqa: N815
    note: str | None = None


class RulePage(Answer):
    """Rules in the order in which they were made."""

    items: list[Rule]
    total: Count = Field(description="rules on all pages")
    cursor: str | None = Field(description="for the next page; null: this is the last one")


class Alert(Answer):
    """A rule came true, or, `retracted`, did so in a block that a reorg has undone."""

    id: str
    rule: str
    kind: AlertKind
    s: str
    b: Count
    bh: str
    t: Millis
    trade: str | None = None
    value: Decimal | None = None
    threshold: Decimal | None = None
    windowMs: Count | None = None  # noqa: N815
    retracted: bool | None = None


class FiredList(Position):
    """The newest alerts, newest first."""

    items: list[Alert]

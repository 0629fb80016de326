"""What listing services are answered, for `/openapi.json`: the names are theirs."""

from typing import Annotated, Literal

from pydantic import Field

from listener.infrastructure.gateway.schemas import Answer, Count

Units = Annotated[str, Field(pattern=r"^\d+(\.\d+)?$", description="whole tokens", examples=["12.5"])]
Address = Annotated[str, Field(description="with its checksum (EIP-55)")]


class Block(Answer):
    """A final block."""

    blockNumber: Count  # noqa: N815 - names of the services, here and below
    blockTimestamp: Annotated[int, Field(description="Unix seconds")]  # noqa: N815


class LatestBlock(Answer):
    """The newest block that can be asked for."""

    block: Block


class Asset(Answer):
    """A token."""

    id: Address
    name: str
    symbol: str
    decimals: Annotated[int, Field(description="GeckoTerminal only")] = 18
    totalSupply: Units | None = None  # noqa: N815


class AssetReply(Answer):
    """An asset."""

    asset: Asset


class Pair(Answer):
    """A market; never changes."""

    id: Address
    dexKey: str  # noqa: N815
    asset0Id: Address  # noqa: N815
    asset1Id: Address  # noqa: N815
    createdAtBlockNumber: Count  # noqa: N815
    createdAtBlockTimestamp: Count  # noqa: N815
    createdAtTxnId: str | None = None  # noqa: N815
    creator: Annotated[str | None, Field(description="GeckoTerminal only")] = None
    feeBps: Count | None = None  # noqa: N815


class PairReply(Answer):
    """A pair."""

    pair: Pair


class Reserves(Answer):
    """What the pool holds after an event."""

    asset0: Units
    asset1: Units


class Event(Answer):
    """A trade (`swap`), or liquidity that leaves a curve (`exit`)."""

    block: Block
    eventType: Literal["swap", "exit"]  # noqa: N815
    txnId: str  # noqa: N815
    txnIndex: Count  # noqa: N815
    eventIndex: Count  # noqa: N815
    maker: Address
    pairId: Address  # noqa: N815
    asset0In: Units | None = None  # noqa: N815
    asset1In: Units | None = None  # noqa: N815
    asset0Out: Units | None = None  # noqa: N815
    asset1Out: Units | None = None  # noqa: N815
    amount0: Units | None = None
    amount1: Units | None = None
    priceNative: Units | None = None  # noqa: N815
    reserves: Reserves | None = None


class Events(Answer):
    """Events of a range."""

    events: list[Event]

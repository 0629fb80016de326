"""How the two listing services want to be told. Pure.

DEX Screener Adapter 1.1, and GeckoTerminal's flavour of it: there an asset has `decimals`, a pair its
`creator`, and each event its reserves. Both take amounts and prices as strings, which is what they get: a
JSON number loses digits.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from listener.application.listing import Asset, ListedBlock, ListedEvent, Pair

Record = dict[str, object]

_SIDES: Final = {"buy": ("asset0Out", "asset1In"), "sell": ("asset0In", "asset1Out")}


class Flavour(StrEnum):
    """Who asks."""

    DEX_SCREENER = "dexscreener"
    GECKO_TERMINAL = "geckoterminal"


def block_record(block: ListedBlock) -> Record:
    """`Block`: time in seconds."""
    return {"blockNumber": block.number, "blockTimestamp": block.time_s}


def asset_record(asset: Asset, flavour: Flavour) -> Record:
    """`Asset`."""
    record: Record = {"id": asset.id, "name": asset.name, "symbol": asset.symbol}
    if flavour is Flavour.GECKO_TERMINAL:
        record["decimals"] = asset.decimals
    if asset.supply:
        record["totalSupply"] = asset.supply
    return record


def pair_record(pair: Pair, flavour: Flavour) -> Record:
    """`Pair`."""
    record: Record = {
        "id": pair.id,
        "dexKey": pair.dex,
        "asset0Id": pair.asset0,
        "asset1Id": pair.asset1,
        "createdAtBlockNumber": pair.block,
        "createdAtBlockTimestamp": pair.time_s,
    }
    if pair.txn_id:
        record["createdAtTxnId"] = pair.txn_id
    if flavour is Flavour.GECKO_TERMINAL:
        record["creator"] = pair.creator
    if pair.fee_bps is not None:
        record["feeBps"] = pair.fee_bps
    return record


def event_records(blocks: Iterable[ListedBlock], flavour: Flavour) -> list[Record]:
    """`SwapEvent` and `JoinExitEvent`, in order; for GeckoTerminal those with reserves."""
    needs_reserves = flavour is Flavour.GECKO_TERMINAL
    return [
        _event_record(event, block_record(block))
        for block in blocks
        for event in block.events
        if event.reserves is not None or not needs_reserves
    ]


def _event_record(event: ListedEvent, block: Record) -> Record:
    """Exactly one asset goes in and one comes out of a trade."""
    record: Record = {
        "block": block,
        "eventType": "exit" if event.kind == "exit" else "swap",
        "txnId": event.txn_id,
        "txnIndex": event.txn_index,
        "eventIndex": event.event_index,
        "maker": event.maker,
        "pairId": event.pair,
    }
    if event.kind == "exit":
        record |= {"amount0": event.amount0, "amount1": event.amount1}
    else:
        first, second = _SIDES[event.kind]
        record |= {first: event.amount0, second: event.amount1, "priceNative": event.price}
    if event.reserves is not None:
        record["reserves"] = {"asset0": event.reserves[0], "asset1": event.reserves[1]}
    return record

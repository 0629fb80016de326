"""A listing service: asks for each block once, refuses what its specification does not allow, keeps trades.

It shares no code with the listener. What it knows of a trade it has from the answers alone.
"""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any, Final, NamedTuple

from web3 import Web3

ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}")
HASH: Final = re.compile(r"0x[0-9a-f]{64}")
DECIMAL: Final = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]*[1-9])?")
PLACES: Final = 50
BLOCK: Final = {"blockNumber": int, "blockTimestamp": int}
SWAP: Final = {
    "block": dict,
    "eventType": str,
    "txnId": str,
    "txnIndex": int,
    "eventIndex": int,
    "maker": str,
    "pairId": str,
    "priceNative": str,
    "reserves": dict,
}
EXIT: Final = {name: kind for name, kind in SWAP.items() if name != "priceNative"} | {
    "amount0": str,
    "amount1": str,
}
ASSET: Final = {"id": str, "name": str, "symbol": str}
PAIR: Final = {
    "id": str,
    "dexKey": str,
    "asset0Id": str,
    "asset1Id": str,
    "createdAtBlockNumber": int,
    "createdAtBlockTimestamp": int,
    "createdAtTxnId": str,
    "feeBps": int,
}

Json = dict[str, Any]


class Said(NamedTuple):
    """An answer."""

    status: int
    body: bytes
    cache: str

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


Ask = Callable[[str], Said]


def asking(root: str) -> Ask:
    """Ask a server."""

    def ask(path: str) -> Said:
        try:
            with urllib.request.urlopen(root + path, timeout=40) as answer:
                return Said(answer.status, answer.read(), answer.headers["Cache-Control"])
        except urllib.error.HTTPError as error:
            return Said(error.code, error.read(), error.headers["Cache-Control"])

    return ask


def fields(record: Json, required: dict[str, type], optional: dict[str, type] | None = None) -> None:
    """Refuse a record that lacks a field, has one too many, or one of another type."""
    allowed = {**required, **(optional or {})}
    assert set(required) <= set(record) <= set(allowed), record
    for name, value in record.items():
        assert type(value) is allowed[name], f"{name}: {value!r}"


def address(text: str) -> str:
    """Refuse an address without the right checksum."""
    assert ADDRESS.fullmatch(text), text
    assert text == Web3.to_checksum_address(text)
    return text


def number(text: str) -> Decimal:
    """A plain decimal, up to the places that a service reads."""
    assert DECIMAL.fullmatch(text), text
    whole, _, fraction = text.partition(".")
    return Decimal(f"{whole}.{fraction[:PLACES]}")


class ListingClient:
    """Walks a chain block by block.

    Args:
        ask: one request, path in, answer out.
        flavour: `dexscreener` or `geckoterminal`.

    Attributes:
        ask: may be replaced where the server has moved.
        trades: by token, oldest first, each as the public contract names its fields.
        exits: by token.
        walked: the last block that was asked for.
        bodies: what was answered, by the range that was asked for.
    """

    def __init__(self, ask: Ask, flavour: str) -> None:
        self.ask, self.flavour = ask, flavour
        self._gecko = flavour == "geckoterminal"
        self.trades: dict[str, list[Json]] = {}
        self.exits: dict[str, list[Json]] = {}
        self.pairs: dict[str, Json] = {}
        self.assets: dict[str, Json] = {}
        self.walked = -1
        self.bodies: dict[tuple[int, int], bytes] = {}
        self._latest: Json = {"blockNumber": -1, "blockTimestamp": 0}
        self._held: dict[str, tuple[Decimal, Decimal]] = {}

    def get(self, path: str) -> Json:
        """A good answer."""
        said = self.ask(f"/{self.flavour}{path}")
        assert said.status == 200, (path, said)
        found: Json = said.json
        return found

    def latest(self) -> int:
        """The newest block that may be asked for, which never goes back."""
        body = self.get("/latest-block")
        fields(body, {"block": dict})
        fields(body["block"], BLOCK)
        assert body["block"]["blockNumber"] >= self._latest["blockNumber"]
        self._latest = body["block"]
        return int(self._latest["blockNumber"])

    def walk(self, most: int = 1) -> int:
        """Ask for each block up to the newest one, `most` at once, none of them twice; the last one."""
        latest = self.latest()
        while self.walked < latest:
            self.ask_for(self.walked + 1, min(self.walked + most, latest))
        return latest

    def ask_for(self, first: int, last: int) -> None:
        """Index a range."""
        said = self.ask(f"/{self.flavour}/events?fromBlock={first}&toBlock={last}")
        assert said.status == 200, said
        assert "immutable" in said.cache
        self.bodies[first, last] = said.body
        fields(said.json, {"events": list})
        places: list[tuple[int, int, int]] = []
        for event in said.json["events"]:
            fields(event["block"], BLOCK)
            block = event["block"]["blockNumber"]
            assert first <= block <= last
            places.append((block, event["txnIndex"], event["eventIndex"]))
            self.index(event)
        assert places == sorted(set(places)), "not in order, or twice the same place"
        self.walked = last

    def index(self, event: Json) -> None:
        """Check an event and keep what it says."""
        assert HASH.fullmatch(event["txnId"])
        assert event["txnIndex"] >= 0 <= event["eventIndex"]
        address(event["maker"])
        pair = self._pair(event["pairId"])
        held = tuple(number(event["reserves"][name]) for name in ("asset0", "asset1"))
        before = self._held.get(pair["id"], (Decimal(self.supply(pair)), Decimal(0)))
        if event["eventType"] == "swap":
            change = self._swap(event, pair)
            with localcontext(prec=200):
                assert held == (before[0] + change[0], before[1] + change[1]), "the pool holds something else"
        else:
            fields(event, EXIT)
            assert event["eventType"] == "exit"
            assert before == (number(event["amount0"]), number(event["amount1"]))
            assert held == (0, 0)
            self.exits.setdefault(pair["asset0Id"].lower(), []).append(event)
        self._held[pair["id"]] = held[0], held[1]

    def _swap(self, event: Json, pair: Json) -> tuple[Decimal, Decimal]:
        """Keep a trade; by how much it changes what the pool holds."""
        bought = "asset1In" in event
        names = ("asset0Out", "asset1In") if bought else ("asset0In", "asset1Out")
        fields(event, SWAP | dict.fromkeys(names, str))
        base, quote, price = (number(event[name]) for name in (*names, "priceNative"))
        assert base > 0 < quote
        assert price > 0
        block = event["block"]
        trade = {
            "id": f"{block['blockNumber']}-{event['eventIndex']}",
            "t": block["blockTimestamp"] * 1000,
            "b": block["blockNumber"],
            "li": event["eventIndex"],
            "tx": event["txnId"],
            "side": "buy" if bought else "sell",
            "trader": event["maker"].lower(),
            "xp": event["priceNative"],
            "v": event[names[0]],
            "q": event[names[1]],
        }
        self.trades.setdefault(pair["asset0Id"].lower(), []).append(trade)
        return (-base, quote) if bought else (base, -quote)

    def _pair(self, name: str) -> Json:
        address(name)
        if name not in self.pairs:
            pair = self.get(f"/pair?id={name}")["pair"]
            fields(pair, PAIR | ({"creator": str} if self._gecko else {}))
            assert pair["id"] == name
            assert pair["dexKey"]
            assert HASH.fullmatch(pair["createdAtTxnId"])
            for asset in (pair["asset0Id"], pair["asset1Id"]):
                self._asset(asset)
            self.pairs[name] = pair
        return self.pairs[name]

    def _asset(self, name: str) -> None:
        asset = self.get(f"/asset?id={address(name)}")["asset"]
        fields(asset, ASSET | ({"decimals": int} if self._gecko else {}), {"totalSupply": str})
        assert asset["id"] == name
        assert asset["name"]
        assert asset["symbol"]
        self.assets[name] = asset

    def events(self, block: int) -> list[Json]:
        """What was answered of a block that was asked for alone."""
        found: list[Json] = json.loads(self.bodies[block, block])["events"]
        return found

    def supply(self, pair: Json) -> str:
        """All that a pool holds before its first trade."""
        return str(self.assets[pair["asset0Id"]]["totalSupply"])

"""What tokens say of themselves, without believing too much of it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError

from listener.domain.entities import TokenInfo
from listener.domain.errors import InvalidValue
from listener.domain.value_objects import Address
from listener.infrastructure.blockchain.rpc import Reply, translated
from listener.infrastructure.blockchain.wire import UNREADABLE
from listener.infrastructure.blockchain.witness import Rpc

DECIMALS: Final = "0x313ce567"
NAME: Final = "0x06fdde03"
SYMBOL: Final = "0x95d89b41"
TOTAL_SUPPLY: Final = "0x18160ddd"

MAX_TEXT: Final = 64
"""Characters of a name or symbol that are kept."""


async def read_tokens(rpc: Rpc, tokens: Iterable[Address]) -> Mapping[Address, TokenInfo]:
    """Decimals, name and symbol of ERC-20 tokens; one whose decimals cannot be read is absent.

    Raises:
        NodeUnavailable: the node, not the token, failed.
    """
    wanted = sorted(tokens)
    calls = [call(token, selector) for token in wanted for selector in (DECIMALS, NAME, SYMBOL)]
    replies = iter(await rpc.batch(calls))
    found: dict[Address, TokenInfo] = {}
    for token in wanted:
        decimals, name, symbol = (returned(next(replies)) for _ in range(3))
        if len(decimals) < 32:
            continue
        try:
            short = f"{token[:6]}…{token[-4:]}"
            found[token] = TokenInfo(
                int.from_bytes(decimals[:32]), _text(name) or short, _text(symbol) or short
            )
        except InvalidValue:
            continue
    return found


async def read_supply(rpc: Rpc, token: Address) -> int | None:
    """Total supply of an ERC-20 token in base units; None if it does not say.

    Raises:
        NodeUnavailable: the node, not the token, failed.
    """
    (reply,) = await rpc.batch([call(token, TOTAL_SUPPLY)])
    supply = returned(reply)
    return int.from_bytes(supply[:32]) if len(supply) >= 32 else None


def call(contract: str, selector: str) -> tuple[str, Sequence[object]]:
    """A question to a contract about its present state, without arguments."""
    return "eth_call", ({"to": contract, "data": selector}, "latest")


def returned(reply: Reply) -> bytes:
    """Bytes that a contract returned; empty if it refused.

    Raises:
        NodeUnavailable: the node, not the contract, failed.
    """
    if reply.error:
        if reply.error.is_revert:
            return b""
        raise translated(reply.error, "eth_call")
    try:
        return bytes.fromhex(msgspec.json.decode(reply.result, type=str).removeprefix("0x"))
    except (ValueError, *UNREADABLE):
        return b""


def _text(returned: bytes) -> str:
    """A string or bytes32 result as printable text of bounded length; empty if it is neither."""
    if len(returned) == 32:
        raw = returned.rstrip(b"\0")
    else:
        try:
            (raw,) = decode(["bytes"], returned)
        except (DecodingError, OverflowError):
            return ""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return ""
    return "".join(character for character in text if character.isprintable())[:MAX_TEXT].strip()

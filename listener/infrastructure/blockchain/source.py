"""`ChainSource` on JSON-RPC: every reply is cross-checked before it is believed."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from listener.application.errors import (
    InconsistentReply,
    InvalidConfiguration,
    NodeBehind,
    NodeSlow,
    NodeUnavailable,
    RangeTooLarge,
)
from listener.application.interfaces import ChainIdentity
from listener.domain.entities import TokenInfo
from listener.domain.facts import BlockFacts, Fact
from listener.domain.value_objects import Address, BlockRef
from listener.infrastructure.blockchain.rpc import HttpRpc, result
from listener.infrastructure.blockchain.tokens import read_tokens
from listener.infrastructure.blockchain.venues.venue import Decoder, decode_log
from listener.infrastructure.blockchain.wire import Header, Log

BLOCK_BY_NUMBER: Final = "eth_getBlockByNumber"
BLOCK_BY_HASH: Final = "eth_getBlockByHash"
GET_LOGS: Final = "eth_getLogs"
NO_OLD_STATE: Final = re.compile(
    r"missing trie node|state.{0,40}(unavailable|not available|pruned|recent)|historical state|archive|"
    r"distance to target|too old|header not found",
    re.IGNORECASE,
)
"""How nodes say that they keep no state of an old block."""


class RpcChainSource:
    """Blocks and facts from one node.

    Args:
        rpc: the node's HTTP endpoint.
        decoders: by topic 0, of all configured venues.
    """

    def __init__(self, rpc: HttpRpc, decoders: Mapping[str, Decoder]) -> None:
        self._rpc = rpc
        self._decoders = decoders
        self._topics = [sorted(decoders)]

    async def identity(self) -> ChainIdentity:
        """See `ChainSource.identity`."""
        chain_id = await self._rpc.call("eth_chainId", (), str)
        genesis = await self._rpc.call(BLOCK_BY_NUMBER, ("0x0", False), Header)
        if chain_id is None or genesis is None:
            raise NodeUnavailable(f"{self._rpc.host}: no chain id or no block 0")
        try:
            return ChainIdentity(int(chain_id, 16), genesis.hash.lower())
        except ValueError as error:
            raise NodeUnavailable(f"{self._rpc.host}: not a chain id: {chain_id[:80]!r}") from error

    async def tip(self) -> BlockRef:
        """See `ChainSource.tip`."""
        return await self._header("latest")

    async def block(self, number: int) -> BlockRef:
        """See `ChainSource.block`."""
        block = await self._header(hex(number))
        if block.number != number:
            raise InconsistentReply(f"asked for block {number}, got {block.number}")
        return block

    async def _header(self, tag: str) -> BlockRef:
        header = await self._rpc.call(BLOCK_BY_NUMBER, (tag, False), Header)
        if header is None:
            raise NodeBehind(f"{self._rpc.host} has no block {tag} yet")
        return header.ref()

    async def facts(self, block: BlockRef) -> BlockFacts:
        """See `ChainSource.facts`. One round trip: the header is checked along with its logs."""
        header_reply, logs_reply = await self._rpc.batch(
            [
                (BLOCK_BY_HASH, (block.hash, False)),
                (GET_LOGS, ({"blockHash": block.hash, "topics": self._topics},)),
            ]
        )
        header = result(header_reply, BLOCK_BY_HASH, Header)
        if header is None:
            raise NodeBehind(f"{self._rpc.host} does not know block {block.number} {block.hash}")
        if header.ref() != block:
            raise InconsistentReply(f"block {block.number} {block.hash} has two headers")
        logs = result(logs_reply, GET_LOGS, list[Log])
        if logs is None:
            raise NodeBehind(f"{self._rpc.host} has no logs of block {block.number} yet")
        return BlockFacts(block, self._facts(block, logs))

    async def facts_between(self, first: int, last: int) -> Sequence[BlockFacts]:
        """See `ChainSource.facts_between`."""
        wanted = {"fromBlock": hex(first), "toBlock": hex(last), "topics": self._topics}
        try:
            logs = await self._rpc.call(GET_LOGS, (wanted,), list[Log])
        except NodeSlow as error:
            if first == last:
                raise
            raise RangeTooLarge(str(error)) from error
        if logs is None:
            raise NodeUnavailable(f"{self._rpc.host}: no answer for logs {first}…{last}")
        by_block: dict[int, list[Log]] = {first: [], last: []}
        for log in logs:
            by_block.setdefault(log.place()[0], []).append(log)
        numbers = sorted(by_block)
        if numbers[0] < first or numbers[-1] > last:
            raise InconsistentReply(f"logs of blocks {numbers[0]}…{numbers[-1]} for {first}…{last}")
        replies = await self._rpc.batch([(BLOCK_BY_NUMBER, (hex(number), False)) for number in numbers])
        blocks: list[BlockFacts] = []
        for number, reply in zip(numbers, replies, strict=True):
            header = result(reply, BLOCK_BY_NUMBER, Header)
            if header is None:
                raise NodeBehind(f"{self._rpc.host} has no block {number} yet")
            block = header.ref()
            if block.number != number:
                raise InconsistentReply(f"asked for block {number}, got {block.number}")
            blocks.append(BlockFacts(block, self._facts(block, by_block[number])))
        return blocks

    def _facts(self, block: BlockRef, logs: Sequence[Log]) -> tuple[Fact, ...]:
        """Decode the logs of one block, in order, after checking that they are its logs."""
        facts: list[Fact] = []
        previous = -1
        for log in logs:
            number, index = log.place()
            if log.block_hash.lower() != block.hash or number != block.number:
                raise InconsistentReply(f"block {block.number}: a log of block {log.block_hash}")
            if index <= previous:
                raise InconsistentReply(f"block {block.number}: log {index} after log {previous}")
            previous = index
            fact = decode_log(log, self._decoders)
            if fact is not None:
                facts.append(fact)
        return tuple(facts)

    async def tokens(self, tokens: Iterable[Address]) -> Mapping[Address, TokenInfo]:
        """See `ChainSource.tokens`."""
        return await read_tokens(self._rpc, tokens)

    async def deployment_block(self, address: Address) -> int:
        """See `ChainSource.deployment_block`. Bisects `eth_getCode`: about 25 calls."""
        high = (await self.tip()).number
        if not await self._has_code(address, high):
            raise InvalidConfiguration(
                f"BONDING_CURVE_FACTORY_ADDRESS: there is no contract at {address} on this chain; "
                "check the address, CHAIN_ID and BLOCKCHAIN_HTTP_URL"
            )
        low = 0
        while low < high:
            middle = (low + high) // 2
            if await self._has_code(address, middle):
                high = middle
            else:
                low = middle + 1
        return low

    async def _has_code(self, address: Address, number: int) -> bool:
        reply = (await self._rpc.batch([("eth_getCode", (address, hex(number)))]))[0]
        if reply.error and NO_OLD_STATE.search(reply.error.message):
            raise InvalidConfiguration(
                f"START_BLOCK: the node cannot say what was at {address} in block {number} "
                f"({reply.error.message[:120]}): it keeps no old state; set START_BLOCK to the factory's "
                "deployment block, e.g. START_BLOCK=12345678"
            )
        return (result(reply, "eth_getCode", str) or "0x") != "0x"

"""`ChainSource` on JSON-RPC: every reply is cross-checked before it is believed."""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeVar

from msgspec import Raw

from listener.application.errors import (
    InconsistentReply,
    InvalidConfiguration,
    NodeBehind,
    NodeSlow,
    NodeUnavailable,
    NodeUnsuitable,
    RangeTooLarge,
    Retryable,
)
from listener.application.history import History
from listener.application.interfaces import ChainIdentity
from listener.domain.entities import TokenInfo
from listener.domain.facts import BlockFacts
from listener.domain.value_objects import Address, BlockRef
from listener.infrastructure.blockchain.bloom import (
    BloomPolicy,
    TopicBits,
    bloom_of,
    parse_bloom,
    says_something,
)
from listener.infrastructure.blockchain.bulk import read
from listener.infrastructure.blockchain.rpc import Reply, result
from listener.infrastructure.blockchain.tokens import read_tokens
from listener.infrastructure.blockchain.venues.venue import Decoder, TradeLayout
from listener.infrastructure.blockchain.wire import Header, Log
from listener.infrastructure.blockchain.witness import (
    BLOCK_BY_HASH,
    BLOCK_BY_NUMBER,
    GET_LOGS,
    ReceiptReader,
    Rpc,
    block_facts,
    decoded,
    fuller,
    own_logs,
)

T = TypeVar("T")

NO_OLD_STATE: Final = re.compile(
    r"missing trie node|state.{0,40}(unavailable|not available|pruned|recent)|historical state|archive|"
    r"distance to target|too old|header not found",
    re.IGNORECASE,
)
"""How nodes say that they keep no state of an old block."""
NO_SUCH_TAG: Final = re.compile(
    r"not found|unknown|(un|not )supported|invalid|hex string|cannot unmarshal|pars(e|ing)|finalized",
    re.IGNORECASE,
)
"""How nodes say that they know no block called `finalized`."""
NO_LAYOUTS: Final[Mapping[str, TradeLayout]] = MappingProxyType({})
PATIENCE_LOOKS: Final = 10
"""So many second looks in a row may fail; then a lenient source goes on with what it has."""


class RpcChainSource:
    """Blocks and facts from a node.

    Args:
        rpc: the node, or several that stand in for each other.
        decoders: by topic 0, of all configured venues.
        bloom: what to make of a header whose bloom contradicts the logs that came.
        second: asked for the logs of ranges too; the fuller answer counts.
        finality_tag: of the newest block that counts as final, `finalized` or `safe`; None: ask for none.
        layouts: of trades, by topic 0; what has none is decoded one by one.
    """

    def __init__(
        self,
        rpc: Rpc,
        decoders: Mapping[str, Decoder],
        bloom: BloomPolicy = "lenient",
        second: Rpc | None = None,
        finality_tag: str | None = "finalized",
        *,
        layouts: Mapping[str, TradeLayout] = NO_LAYOUTS,
    ) -> None:
        self._rpc = rpc
        self._decoders = decoders
        self._layouts = layouts
        self._bloom: BloomPolicy = bloom
        self._second = second
        self._finality_tag = finality_tag
        self._topics = [sorted(decoders)]
        self._bits = TopicBits(decoders)
        self._receipts = ReceiptReader(rpc)
        self._vain_looks = 0

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

    async def finalized(self) -> BlockRef | None:
        """See `ChainSource.finalized`."""
        if self._finality_tag is None:
            return None
        reply = (await self._rpc.batch([(BLOCK_BY_NUMBER, (self._finality_tag, False))]))[0]
        if reply.error and not reply.error.is_rate_limit and NO_SUCH_TAG.search(reply.error.text()):
            return None
        header = result(reply, BLOCK_BY_NUMBER, Header)
        return header.ref() if header else None

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
        """See `ChainSource.facts`. One round trip: the header is checked along with its logs.

        Raises:
            NodeUnsuitable: the policy needs receipts, and the node has none.
        """
        header_reply, logs_reply = await self._rpc.batch(
            [(BLOCK_BY_HASH, (block.hash, False)), self._logs_of(block)]
        )
        header = result(header_reply, BLOCK_BY_HASH, Header)
        if header is None:
            raise NodeBehind(f"{self._rpc.host} does not know block {block.number} {block.hash}")
        if header.ref() != block:
            raise InconsistentReply(f"block {block.number} {block.hash} has two headers")
        return block_facts(
            block, await self._agreed(block, header, self._own(block, logs_reply)), self._decoders
        )

    def _logs_of(self, block: BlockRef) -> tuple[str, Sequence[object]]:
        return GET_LOGS, ({"blockHash": block.hash, "topics": self._topics},)

    def _own(self, block: BlockRef, reply: Reply) -> list[Log]:
        logs = result(reply, GET_LOGS, list[Log])
        if logs is None:
            raise NodeBehind(f"{self._rpc.host} has no logs of block {block.number} yet")
        return own_logs(block, logs, self._decoders)

    async def _agreed(self, block: BlockRef, header: Header, own: Sequence[Log]) -> Sequence[Log]:
        """The block's logs, after a second look if its bloom contradicts those that came."""
        if self._bloom == "off":
            return own
        bloom = parse_bloom(header.logs_bloom)
        strict = self._bloom == "strict"
        if bloom is None:
            if strict:
                raise InconsistentReply(f"block {block.number} has no logs bloom, see BLOOM_POLICY")
            return own
        came = {log.topics[0] for log in own}
        if says_something(bloom) and self._bits.hints_at_others(bloom, came):
            return await self._second_look(block, header, own)
        if strict and self._bits.denies(bloom, came):
            return await self._second_look(block, header, own)
        return own

    async def _second_look(self, block: BlockRef, header: Header, own: Sequence[Log]) -> Sequence[Log]:
        """The logs of the block's receipts, if they contain those that came."""
        strict = self._bloom == "strict"
        try:
            logs = (await self._receipts.logs({block: header.transaction_hashes()}))[block]
        except NodeUnsuitable as error:
            if strict:
                raise NodeUnsuitable(f"{error}: BLOOM_POLICY=strict needs them, set it to lenient") from error
            again = (await self._rpc.batch([self._logs_of(block)]))[0]
            return fuller(own, self._own(block, again))
        except Retryable:
            self._vain_looks += 1
            if strict or self._vain_looks < PATIENCE_LOOKS:
                raise
            return own
        self._vain_looks = 0
        if strict and _bloom_of(block, logs) != parse_bloom(header.logs_bloom):
            raise InconsistentReply(f"block {block.number}: its bloom is not that of its receipts' logs")
        found = own_logs(block, logs, self._decoders)
        if fuller(found, own) is not found:
            raise InconsistentReply(f"block {block.number}: logs that its receipts do not have")
        return found

    async def history(self, first: int, last: int) -> History:
        """See `ChainSource.history`. No digests.

        Trades come in bulk unless their logs are to be held against each header's bloom or against those of
        another endpoint.
        """
        if self._bloom == "strict" or self._second is not None:
            return History(await self._one_by_one(first, last))
        reading = read(memoryview(await self._range(self._rpc, first, last, Raw)), self._layouts)
        by_block: dict[int, list[Log]] = {}
        for log in reading.others:
            by_block.setdefault(log.place()[0], []).append(log)
        blocks: list[BlockFacts] = []
        for block in await self._headers(first, last, reading.hashes):
            if reading.hashes.get(block.number, block.hash) != block.hash:
                raise InconsistentReply(f"block {block.number}: logs of {reading.hashes[block.number]}")
            own = own_logs(block, by_block.get(block.number, ()), self._decoders)
            blocks.append(BlockFacts(block, decoded(own, self._decoders)))
        trades = reading.trades and reading.trades.at([block.block for block in blocks])
        return History(blocks, trades)

    async def _one_by_one(self, first: int, last: int) -> list[BlockFacts]:
        """Facts of final blocks; with blooms taken strictly, every header is read."""
        return [
            BlockFacts(block, decoded(own, self._decoders)) for block, own in await self.logs(first, last)
        ]

    async def logs(
        self, first: int, last: int, *, lenient_too: bool = False
    ) -> list[tuple[BlockRef, Sequence[Log]]]:
        """Logs of our topics of final blocks: those of the first, the last, and each that has some.

        Args:
            first: number of the first block.
            last: number of the last one.
            lenient_too: hold every header's bloom against them under the policy `lenient` as well.

        Raises:
            RangeTooLarge: the node refuses so many blocks or logs at once.
            InconsistentReply: logs and headers contradict each other.
        """
        by_block: dict[int, list[Log]] = {}
        for log in await self._logs_between(first, last):
            by_block.setdefault(log.place()[0], []).append(log)
        every = self._bloom == "strict" or (lenient_too and self._bloom == "lenient")
        blocks: list[tuple[BlockRef, Sequence[Log]]] = []
        newest: BlockRef | None = None
        for header in await self._full_headers(first, last, range(first, last + 1) if every else by_block):
            block = header.ref()
            if newest and newest.number + 1 == block.number and newest.hash != block.parent_hash:
                raise InconsistentReply(f"block {block.number} does not follow block {newest.number}")
            newest = block
            own: Sequence[Log] = own_logs(block, by_block.get(block.number, ()), self._decoders)
            if every:
                own = await self._agreed(block, header, own)
            if own or block.number in {first, last, *by_block}:
                blocks.append((block, own))
        return blocks

    async def _headers(self, first: int, last: int, numbers: Iterable[int]) -> list[BlockRef]:
        return [header.ref() for header in await self._full_headers(first, last, numbers)]

    async def _full_headers(self, first: int, last: int, numbers: Iterable[int]) -> list[Header]:
        """Headers of `first`, `last` and blocks between them, ascending."""
        wanted = sorted({first, last, *numbers})
        if wanted[0] < first or wanted[-1] > last:
            raise InconsistentReply(f"logs of blocks {wanted[0]}…{wanted[-1]} for {first}…{last}")
        replies = await self._rpc.batch([(BLOCK_BY_NUMBER, (hex(number), False)) for number in wanted])
        headers: list[Header] = []
        for number, reply in zip(wanted, replies, strict=True):
            header = result(reply, BLOCK_BY_NUMBER, Header)
            if header is None:
                raise NodeBehind(f"{self._rpc.host} has no block {number} yet")
            if (found := header.ref().number) != number:
                raise InconsistentReply(f"asked for block {number}, got {found}")
            headers.append(header)
        return headers

    async def _logs_between(self, first: int, last: int) -> Sequence[Log]:
        """The logs of a range, from both endpoints if there are two."""
        if self._second is None:
            return await self._range(self._rpc, first, last, list[Log])
        accounts = await asyncio.gather(
            self._range(self._rpc, first, last, list[Log]),
            self._range(self._second, first, last, list[Log]),
            return_exceptions=True,
        )
        found: list[list[Log]] = []
        for account in accounts:
            if isinstance(account, BaseException):
                raise account
            found.append([log for log in account if log.topics and log.topics[0] in self._decoders])
        return fuller(*found)

    async def _range(self, rpc: Rpc, first: int, last: int, kind: type[T]) -> T:
        wanted = {"fromBlock": hex(first), "toBlock": hex(last), "topics": self._topics}
        try:
            logs = await rpc.call(GET_LOGS, (wanted,), kind)
        except NodeSlow as error:
            if first == last:
                raise
            raise RangeTooLarge(str(error)) from error
        if logs is None:
            raise NodeUnavailable(f"{rpc.host}: no answer for logs {first}…{last}")
        return logs

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


def _bloom_of(block: BlockRef, logs: Sequence[Log]) -> int:
    try:
        return bloom_of(logs)
    except ValueError as error:
        raise InconsistentReply(f"block {block.number}: a log that is not hex: {error}") from error

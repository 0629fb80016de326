"""What a block's logs are, and second accounts of them: its receipts, or another endpoint's logs."""

import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Final, Protocol, TypeVar

from listener.application.errors import (
    InconsistentReply,
    NodeBehind,
    NodeSlow,
    NodeUnsuitable,
    RangeTooLarge,
)
from listener.domain.facts import BlockFacts, Fact
from listener.domain.value_objects import BlockRef
from listener.infrastructure.blockchain.rpc import NOT_OFFERED_CODES, Reply, RpcError, result
from listener.infrastructure.blockchain.venues.venue import Decoder, decode_log
from listener.infrastructure.blockchain.wire import Header, Log, Receipt

T = TypeVar("T")

BLOCK_BY_NUMBER: Final = "eth_getBlockByNumber"
BLOCK_BY_HASH: Final = "eth_getBlockByHash"
BLOCK_RECEIPTS: Final = "eth_getBlockReceipts"
RECEIPT: Final = "eth_getTransactionReceipt"
GET_LOGS: Final = "eth_getLogs"
BLOCKS_AT_ONCE: Final = 8
"""Blocks whose receipts are asked for in one request: those of a full block take about a megabyte."""

_NO_BLOCK_RECEIPTS_CODES: Final = NOT_OFFERED_CODES | {-32602}
"""Some take the method, but no hash."""
_NOT_OFFERED: Final = re.compile(
    r"(method|namespace).{0,60}(not (found|supported|available|allowed|whitelisted|enabled)|disabled|"
    r"does not exist)|unsupported method|unknown method",
    re.IGNORECASE,
)


class Rpc(Protocol):
    """One endpoint, or several that stand in for each other."""

    @property
    def host(self) -> str:
        """For messages."""
        ...

    async def call(self, method: str, params: Sequence[object], kind: type[T]) -> T | None:
        """One call."""
        ...

    async def batch(self, calls: Sequence[tuple[str, Sequence[object]]]) -> list[Reply]:
        """Several calls, errors left in the replies."""
        ...


def own_logs(block: BlockRef, logs: Iterable[Log], topics: Mapping[str, object]) -> list[Log]:
    """The logs of our topics, after checking that all of them are the block's logs, in order.

    Raises:
        InconsistentReply: they are not.
    """
    own: list[Log] = []
    previous = -1
    for log in logs:
        number, index = log.place()
        if number != block.number or (log.block_hash != block.hash and log.block_hash.lower() != block.hash):
            raise InconsistentReply(f"block {block.number}: a log of block {log.block_hash}")
        if index <= previous:
            raise InconsistentReply(f"block {block.number}: log {index} after log {previous}")
        previous = index
        if log.topics and log.topics[0] in topics:
            own.append(log)
    return own


def digest_of(logs: Iterable[Log]) -> str:
    """Stands for logs: what they say and where, in whatever case the node writes it."""
    digest = blake2b(digest_size=8)
    for log in logs:
        place = int(log.log_index, 16)
        digest.update(f"{place}|{log.address}|{','.join(log.topics)}|{log.data};".lower().encode())
    return digest.hexdigest()


def block_facts(block: BlockRef, logs: Sequence[Log], decoders: Mapping[str, Decoder]) -> BlockFacts:
    """What checked logs of our topics say, with their digest."""
    return BlockFacts(block, decoded(logs, decoders), digest_of(logs))


def decoded(logs: Iterable[Log], decoders: Mapping[str, Decoder]) -> tuple[Fact, ...]:
    """What logs say, in order."""
    facts = (decode_log(log, decoders) for log in logs)
    return tuple(fact for fact in facts if fact is not None)


def fuller(one: Sequence[Log], other: Sequence[Log]) -> Sequence[Log]:
    """Of two accounts of the same blocks the one that contains the other.

    Raises:
        InconsistentReply: each has a log that the other lacks.
    """
    keys, others = ({_key(log) for log in logs} for logs in (one, other))
    if keys >= others:
        return one
    if others > keys:
        return other
    raise InconsistentReply(f"two accounts of the same blocks, of {len(one)} and {len(other)} logs, differ")


def _key(log: Log) -> tuple[str, int, str, str, str]:
    topics = ",".join(log.topics).lower()
    return log.block_hash.lower(), log.place()[1], log.address.lower(), topics, log.data.lower()


class ReceiptReader:
    """Reads the receipts of whole blocks, or where the node does not offer that, one by one.

    Args:
        rpc: the node.
    """

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._by_block = True

    async def logs(self, blocks: Mapping[BlockRef, Sequence[str]]) -> dict[BlockRef, list[Log]]:
        """All logs of blocks, in order.

        Args:
            blocks: with the hashes of their transactions, in lower case.

        Raises:
            NodeBehind: a receipt is not there yet.
            InconsistentReply: a receipt is of another block.
            NodeUnsuitable: the node offers no receipts.
        """
        receipts = await self._whole([block for block, hashes in blocks.items() if hashes])
        await self._complete(blocks, receipts)
        return {block: _logs_of(block, receipts.get(block, {}).values()) for block in blocks}

    async def _whole(self, blocks: Sequence[BlockRef]) -> dict[BlockRef, dict[str, Receipt]]:
        """Receipts of blocks by the transactions' hashes; nothing if that is not offered."""
        if not self._by_block or not blocks:
            return {}
        replies = await self._rpc.batch([(BLOCK_RECEIPTS, (block.hash,)) for block in blocks])
        if any(_not_offered(reply.error, _NO_BLOCK_RECEIPTS_CODES) for reply in replies):
            self._by_block = False
            return {}
        found: dict[BlockRef, dict[str, Receipt]] = {}
        for block, reply in zip(blocks, replies, strict=True):
            receipts = result(reply, BLOCK_RECEIPTS, list[Receipt])
            if receipts is None:
                raise NodeBehind(f"{self._rpc.host} has no receipts of block {block.number} yet")
            found[block] = {receipt.transaction_hash.lower(): receipt for receipt in receipts}
        return found

    async def _complete(
        self, blocks: Mapping[BlockRef, Sequence[str]], receipts: dict[BlockRef, dict[str, Receipt]]
    ) -> None:
        """Ask for the receipts that are missing."""
        missing = [
            (block, each) for block in blocks for each in blocks[block] if each not in receipts.get(block, {})
        ]
        replies = await self._rpc.batch([(RECEIPT, (each,)) for _, each in missing]) if missing else []
        for (block, each), reply in zip(missing, replies, strict=True):
            if _not_offered(reply.error, NOT_OFFERED_CODES):
                raise NodeUnsuitable(f"{self._rpc.host} offers no receipts")
            receipt = result(reply, RECEIPT, Receipt)
            if receipt is None or receipt.transaction_hash.lower() != each:
                raise NodeBehind(f"{self._rpc.host} has no receipt of {each} in block {block.number} yet")
            receipts.setdefault(block, {})[each] = receipt


def _not_offered(error: RpcError | None, codes: frozenset[int]) -> bool:
    return error is not None and (error.code in codes or bool(_NOT_OFFERED.search(error.message)))


def _logs_of(block: BlockRef, receipts: Iterable[Receipt]) -> list[Log]:
    logs: list[Log] = []
    for receipt in receipts:
        if receipt.block_hash.lower() != block.hash:
            raise InconsistentReply(f"block {block.number}: a receipt of block {receipt.block_hash}")
        logs += receipt.logs
    return sorted(logs, key=lambda log: log.place()[1])


class ReceiptsWitness:
    """`Witness` by receipts: complete if every transaction of a block has one.

    Args:
        rpc: the node, the same as the source's or another.
        decoders: by topic 0, of all configured venues.
    """

    def __init__(self, rpc: Rpc, decoders: Mapping[str, Decoder]) -> None:
        self._rpc = rpc
        self._decoders = decoders
        self._receipts = ReceiptReader(rpc)

    async def facts(self, blocks: Sequence[BlockRef]) -> Sequence[BlockFacts]:
        """See `Witness.facts`.

        Raises:
            NodeUnsuitable: the node offers no receipts.
        """
        found: list[BlockFacts] = []
        for start in range(0, len(blocks), BLOCKS_AT_ONCE):
            some = blocks[start : start + BLOCKS_AT_ONCE]
            logs = await self._receipts.logs(await self._transactions(some))
            for block in some:
                own = own_logs(block, logs[block], self._decoders)
                found.append(block_facts(block, own, self._decoders))
        return found

    async def _transactions(self, blocks: Sequence[BlockRef]) -> dict[BlockRef, list[str]]:
        replies = await self._rpc.batch([(BLOCK_BY_HASH, (block.hash, False)) for block in blocks])
        found: dict[BlockRef, list[str]] = {}
        for block, reply in zip(blocks, replies, strict=True):
            header = result(reply, BLOCK_BY_HASH, Header)
            if header is None:
                raise NodeBehind(f"{self._rpc.host} does not know block {block.number} {block.hash}")
            if header.ref() != block:
                raise InconsistentReply(f"block {block.number} {block.hash} has two headers")
            found[block] = header.transaction_hashes()
        return found


class LogsWitness:
    """`Witness` by the logs of another endpoint, asked for in wide ranges.

    Args:
        rpc: another endpoint than the source's.
        decoders: by topic 0, of all configured venues.
    """

    def __init__(self, rpc: Rpc, decoders: Mapping[str, Decoder]) -> None:
        self._rpc = rpc
        self._decoders = decoders
        self._topics = [sorted(decoders)]

    async def facts(self, blocks: Sequence[BlockRef]) -> Sequence[BlockFacts]:
        """See `Witness.facts`."""
        found: list[BlockFacts] = []
        for run in _runs(blocks):
            logs = await self._logs(run)
            for block in run:
                own = own_logs(block, logs.get(block.number, ()), self._decoders)
                found.append(block_facts(block, own, self._decoders))
        return found

    async def _logs(self, run: Sequence[BlockRef]) -> dict[int, list[Log]]:
        """Logs by block number; a run that is too much at once is halved."""
        try:
            return await self._logs_at_once(run)
        except (RangeTooLarge, NodeSlow):
            if len(run) == 1:
                raise
        middle = len(run) // 2
        return await self._logs(run[:middle]) | await self._logs(run[middle:])

    async def _logs_at_once(self, run: Sequence[BlockRef]) -> dict[int, list[Log]]:
        """The last block's header shows that the endpoint knows these blocks and not others."""
        first, last = run[0], run[-1]
        wanted = {"fromBlock": hex(first.number), "toBlock": hex(last.number), "topics": self._topics}
        logs_reply, header_reply = await self._rpc.batch(
            [(GET_LOGS, (wanted,)), (BLOCK_BY_NUMBER, (hex(last.number), False))]
        )
        header = result(header_reply, BLOCK_BY_NUMBER, Header)
        logs = result(logs_reply, GET_LOGS, list[Log])
        if header is None or logs is None:
            raise NodeBehind(f"{self._rpc.host} has no block {last.number} yet")
        if header.ref() != last:
            raise InconsistentReply(f"{self._rpc.host} has another block {last.number} than {last.hash}")
        found: dict[int, list[Log]] = {}
        for log in logs:
            found.setdefault(log.place()[0], []).append(log)
        if not found.keys() <= {block.number for block in run}:
            raise InconsistentReply(f"logs of other blocks than {first.number}…{last.number}")
        return found


def _runs(blocks: Iterable[BlockRef]) -> Iterable[list[BlockRef]]:
    """Runs of contiguous blocks."""
    run: list[BlockRef] = []
    for block in blocks:
        if run and block.number != run[-1].number + 1:
            yield run
            run = []
        run.append(block)
    if run:
        yield run

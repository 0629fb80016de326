"""A scripted chain, and `ChainSource` on it."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from listener.application.errors import InvalidConfiguration, NodeBehind, RangeTooLarge
from listener.application.history import History
from listener.application.interfaces import ChainIdentity
from listener.domain.entities import TokenInfo
from listener.domain.facts import BlockFacts
from listener.domain.value_objects import Address, BlockRef
from tests.fakes.build import CHAIN_ID, MONDAY_MS, Maker, digest, token, token_info
from tests.fakes.bulk import in_bulk

BLOCK_MS = 12_000


class LocalChain:
    """A chain that a test writes block by block and forks where it likes.

    Attributes:
        blocks: the canonical chain, block 0 first.
        orphans: blocks that were forked away, by hash.
        tokens: what tokens say of themselves; None: their decimals cannot be read.
        codes: block of deployment by address.
    """

    def __init__(self, chain_id: int = CHAIN_ID, salt: str = "", time: int = MONDAY_MS) -> None:
        self.chain_id = chain_id
        self.blocks: list[BlockFacts] = []
        self.orphans: dict[str, BlockFacts] = {}
        self.tokens: dict[Address, TokenInfo | None] = {
            Address(token(number)): token_info(number) for number in range(10)
        }
        self.codes: dict[Address, int] = {}
        self._salt = salt
        self._forks = 0
        self._first_time = time
        self.mine()

    @property
    def tip(self) -> BlockRef:
        """The newest block."""
        return self.blocks[-1].block

    def mine(self, *makers: Maker, after_ms: int = BLOCK_MS) -> BlockRef:
        """Add a block whose logs state these facts."""
        number = len(self.blocks)
        parent = self.tip.hash if self.blocks else "0x" + "0" * 64
        time = self.tip.timestamp + after_ms if self.blocks else self._first_time
        salt = digest(parent, self._salt, self._forks)
        ref = BlockRef(number, digest(number, salt), parent, time)
        self.blocks.append(BlockFacts(ref, tuple(make(i, salt) for i, make in enumerate(makers))))
        return ref

    def mine_empty(self, count: int, after_ms: int = BLOCK_MS) -> None:
        """Add blocks without logs."""
        for _ in range(count):
            self.mine(after_ms=after_ms)

    def fork(self, depth: int) -> BlockRef:
        """Orphan the newest `depth` blocks; what is mined next differs. Returns the common ancestor."""
        for orphan in self.blocks[len(self.blocks) - depth :]:
            self.orphans[orphan.block.hash] = orphan
        del self.blocks[len(self.blocks) - depth :]
        self._forks += 1
        return self.tip

    def by_hash(self, wanted: str) -> BlockFacts | None:
        """A canonical block."""
        return next((facts for facts in self.blocks if facts.block.hash == wanted), None)


@dataclass(slots=True)
class FakeChain:
    """`ChainSource` on a `LocalChain`.

    Attributes:
        behind: how many of the newest blocks the node does not know yet.
        range_blocks: more blocks at once are refused.
        final: number of the block that the node calls final, if it does.
        errors: one for each call to come; None lets it pass.
        calls: the methods that were called, with their arguments.
    """

    chain: LocalChain
    behind: int = 0
    range_blocks: int = 1_000_000
    final: int | None = None
    errors: deque[Exception | None] = field(default_factory=deque)
    calls: list[tuple[object, ...]] = field(default_factory=list)

    def _called(self, *call: object) -> None:
        self.calls.append(call)
        error = self.errors.popleft() if self.errors else None
        if error is not None:
            raise error

    @property
    def _known(self) -> list[BlockFacts]:
        return self.chain.blocks[: len(self.chain.blocks) - self.behind]

    async def identity(self) -> ChainIdentity:
        """See `ChainSource.identity`."""
        self._called("identity")
        return ChainIdentity(self.chain.chain_id, self.chain.blocks[0].block.hash)

    async def tip(self) -> BlockRef:
        """See `ChainSource.tip`."""
        self._called("tip")
        return self._known[-1].block

    async def finalized(self) -> BlockRef | None:
        """See `ChainSource.finalized`."""
        return None if self.final is None else self._known[self.final].block

    async def block(self, number: int) -> BlockRef:
        """See `ChainSource.block`."""
        self._called("block", number)
        if number >= len(self._known):
            raise NodeBehind(f"no block {number} yet")
        return self._known[number].block

    async def facts(self, block: BlockRef) -> BlockFacts:
        """See `ChainSource.facts`."""
        self._called("facts", block.number)
        for facts in self._known:
            if facts.block.hash == block.hash:
                return facts
        raise NodeBehind(f"block {block.hash} is not known")

    async def history(self, first: int, last: int) -> History:
        """See `ChainSource.history`."""
        return in_bulk(await self.facts_between(first, last))

    async def facts_between(self, first: int, last: int) -> Sequence[BlockFacts]:
        """Facts of final blocks, ascending: those with logs of ours, and in any case `first` and `last`."""
        self._called("facts_between", first, last)
        if last - first + 1 > self.range_blocks:
            raise RangeTooLarge(f"{last - first + 1} blocks")
        if last >= len(self._known):
            raise NodeBehind(f"no block {last} yet")
        return [
            facts
            for facts in self._known[first : last + 1]
            if facts.facts or facts.block.number in {first, last}
        ]

    async def tokens(self, tokens: Iterable[Address]) -> Mapping[Address, TokenInfo]:
        """See `ChainSource.tokens`."""
        wanted = sorted(tokens)
        self._called("tokens", *wanted)
        known = {address: self.chain.tokens.get(address) for address in wanted}
        return {address: info for address, info in known.items() if info is not None}

    async def deployment_block(self, address: Address) -> int:
        """See `ChainSource.deployment_block`."""
        self._called("deployment_block", address)
        if address not in self.chain.codes:
            raise InvalidConfiguration(f"no contract at {address}")
        return self.chain.codes[address]

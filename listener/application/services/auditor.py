"""The auditor: a second look at the logs of final blocks, while they can still be corrected.

A node may leave logs out of a reply that contradicts nothing. Some time later, or asked otherwise, it or
another node gives all of them. The auditor compares digests; where they differ, it finds out who of the two
knows more, and has the follower roll back and fold the block anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from listener.application.errors import NodeUnavailable, NodeUnsuitable
from listener.application.interfaces import ChainSource, MarketStore, Observer, Signal, Witness
from listener.application.state import Written
from listener.domain.facts import BlockFacts
from listener.domain.value_objects import BlockRef


class Ledger(Protocol):
    """What the auditor sees of the follower."""

    def unaudited(self, limit: int) -> Sequence[Written]:
        """Final blocks that wait for a second look, oldest first; contiguous."""
        ...

    def confirm(self, block: BlockRef) -> bool:
        """Blocks up to this one were looked at; whether it is still ours."""
        ...

    def correct(self, facts: BlockFacts) -> bool:
        """Fold this block anew, with these facts; whether it can still be undone."""
        ...


@dataclass(frozen=True, slots=True)
class AuditLimits:
    """Bounds of the audit.

    Attributes:
        blocks: most blocks looked at in one request.
        blocks_per_s: on average, so that a provider's limits are kept.
        idle_s: how often work is looked for when there is none.
    """

    blocks: int
    blocks_per_s: float
    idle_s: float = 2.0


class Auditor:
    """Compares committed blocks with a second account of them.

    Args:
        ledger: the follower.
        chain: asked once more where the witness disagrees with what was committed.
        witness: the second account.
        wanted: wakes the auditor when history waits for it; then it does not pause between two looks.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        chain: ChainSource,
        witness: Witness,
        store: MarketStore,
        wanted: Signal,
        observer: Observer,
        limits: AuditLimits,
    ) -> None:
        self._ledger = ledger
        self._chain = chain
        self._witness = witness
        self._store = store
        self._wanted = wanted
        self._observer = observer
        self._limits = limits

    async def run(self) -> None:
        """Audit for ever. Raises `Retryable` errors and may be called again after one."""
        while True:
            blocks = self._ledger.unaudited(self._limits.blocks)
            if blocks:
                try:
                    await self._look_at(blocks)
                except NodeUnsuitable as error:
                    raise NodeUnavailable(f"no audit: {error}") from error
                self._observer.healthy("audit")
            await self._wanted.wait(
                len(blocks) / self._limits.blocks_per_s if blocks else self._limits.idle_s
            )

    async def _look_at(self, blocks: Sequence[Written]) -> None:
        accounts = await self._witness.facts([written.block for written in blocks])
        confirmed: BlockRef | None = None
        differences = 0
        for written, account in zip(blocks, accounts, strict=True):
            waiting = self._ledger.unaudited(self._limits.blocks)
            if waiting and written.block.number < waiting[0].block.number:
                continue  # can no longer be undone
            if written not in waiting:
                break  # rolled back meanwhile
            if account.digest != written.digest:
                differences += 1
                if await self._judge(written, account):
                    break
            confirmed = written.block
        if confirmed is not None and self._ledger.confirm(confirmed):
            await self._store.save_audited(confirmed)
            self._observer.audited(confirmed, differences)

    async def _judge(self, written: Written, account: BlockFacts) -> bool:
        """Find out who is right about a block; whether it is folded anew."""
        block = written.block
        again = await self._chain.facts(block)
        ours, theirs = ({fact.log_index for fact in one.facts} for one in (again, account))
        if again.digest == account.digest or theirs > ours:
            right = account
        elif ours > theirs:
            right = again
        else:
            self._observer.audit_difference(
                block, f"the node gives logs {sorted(ours)}, the witness {sorted(theirs)}", repaired=False
            )
            return False
        if right.digest == written.digest:
            missing = len(ours - theirs)
            self._observer.audit_difference(
                block, f"the witness lacks {missing} logs that were committed", repaired=False
            )
            return False
        repaired = self._ledger.correct(right)
        self._observer.audit_difference(
            block, f"{len(right.facts)} logs, not those that were committed", repaired=repaired
        )
        return repaired

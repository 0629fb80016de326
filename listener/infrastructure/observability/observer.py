"""`Observer`: one canonical log line for each unit of work, and the health that follows from it."""

import logging
from typing import Final

import structlog

from listener.application.changes import ChangeSet
from listener.application.interfaces import RowId
from listener.domain.value_objects import BlockRef, format_decimal
from listener.infrastructure.observability.health import Health
from listener.infrastructure.observability.logs import SecretMask
from listener.infrastructure.observability.progress import ProgressDisplay

TRADE_LINES_PER_BLOCK: Final = 20
"""Trades logged one by one at INFO; a busier block has its summary only (all of them at DEBUG)."""
MISSED_TOLD: Final = 100
"""Of blocks that the audit missed, the first is told, and then each time that there are so many more."""


class LogObserver:
    """Writes logs and keeps `Health` up to date."""

    def __init__(self, health: Health, progress: ProgressDisplay, mask: SecretMask) -> None:
        self._health = health
        self._mask = mask
        self._progress = progress
        self._log = structlog.get_logger("listener")

    def committed(self, changes: ChangeSet, seconds: float) -> None:
        """See `Observer.committed`."""
        self._health.block = changes.head.number
        if changes.reorg:
            self._log.warning(
                "Reorg rolled back",
                ancestor=changes.reorg.ancestor.number,
                depth=len(changes.reorg.orphaned),
                markets=len(changes.reorg.markets),
            )
        for market in changes.created.values():
            self._log.info(
                "Market created", market=market.id, symbol=market.symbol, block=market.created_block
            )
        if changes.undo and changes.undo.as_of:
            self._trades(changes)
        for interval, up_to in changes.closed.items():
            log = self._log.info if changes.live or (changes.undo and changes.undo.as_of) else self._log.debug
            log("Candles closed", interval=interval, up_to=up_to)
        if changes.blocks:
            (self._log.info if changes.counted else self._log.debug)(
                "Trades committed" if changes.counted else "Block committed",
                block=changes.head.number,
                blocks=len(changes.blocks),
                trades=changes.counted,
                candles=len(changes.candles) + (len(changes.more_candles) if changes.more_candles else 0),
                markets=len(changes.states),
                seq=changes.head.seq,
                ms=round(seconds * 1000, 2),
            )
        if changes.rejected:
            self._health.rejected.update(changes.rejected)
            self._log.warning("Logs rejected", block=changes.head.number, **changes.rejected)

    def _trades(self, changes: ChangeSet) -> None:
        few = changes.counted <= TRADE_LINES_PER_BLOCK
        log = self._log.info if few else self._log.debug
        shown = changes.trades if few or self._log.is_enabled_for(logging.DEBUG) else ()
        for trade in shown:
            log(
                "Trade",
                market=trade.market,
                symbol=changes.market(trade.market).symbol,
                side="buy" if trade.is_buy else "sell",
                price=format_decimal(trade.price),
                id=str(trade.id),
            )
        for market in changes.graduated.values():
            self._log.info("Market graduated", market=market.id, successor=market.successor)

    def progress(self, number: int, target: int, trades: int) -> None:
        """See `Observer.progress`."""
        self._progress.update(number, target, trades)

    def synced(self, *, synced: bool, number: int) -> None:
        """See `Observer.synced`."""
        if self._health.synced is not synced:
            if synced:
                self._progress.done()
            else:
                self._progress.begin(number)
            self._log.info("Following the head" if synced else "Catching up", block=number)
        self._health.synced = synced
        self._health.block = number

    def leading(self, *, leads: bool) -> None:
        """See `Observer.leading`."""
        if self._health.leads is not leads:
            self._log.info("Leading" if leads else "Standing by: another instance leads")
        self._health.leads = leads

    def superseded(self, error: Exception) -> None:
        """See `Observer.superseded`."""
        self._health.synced = None
        self._log.warning("Term ended, recovering", error=str(error))

    def stalled(self, tip: BlockRef, age_ms: int | None) -> None:
        """See `Observer.stalled`."""
        if age_ms is None:
            self._health.stalled = ""
            self._log.info("Blocks come again", block=tip.number)
        else:
            self._health.stalled = f"no block for {age_ms // 1000} s, the node's newest is {tip.number}"
            self._log.warning("Chain stalled", block=tip.number, age_s=age_ms // 1000)

    def audited(self, block: BlockRef, differences: int) -> None:
        """See `Observer.audited`."""
        self._health.audited = block.number
        self._log.debug("Blocks audited", block=block.number, differences=differences)

    def audit_difference(self, block: BlockRef, detail: str, *, repaired: bool) -> None:
        """See `Observer.audit_difference`."""
        self._health.differences[("repaired" if repaired else "reported")] += 1
        self._log.error("Audit found a difference", block=block.number, detail=detail, repaired=repaired)

    def audit_missed(self, first: int, last: int) -> None:
        """See `Observer.audit_missed`."""
        before = self._health.differences["missed"]
        total = self._health.differences["missed"] = before + last - first + 1
        if before == 0 or before // MISSED_TOLD != total // MISSED_TOLD:
            self._log.warning(
                "Blocks became final without a second look", first=first, last=last, total=total
            )

    def trouble(self, service: str, error: Exception, retry_in_s: float) -> None:
        """See `Observer.trouble`."""
        self._health.troubles[service] = self._mask.text(str(error))
        self._log.warning(
            f"Error in {service}, trying again",
            error=f"{type(error).__name__}: {error}",
            retry_in_s=round(retry_in_s, 2),
        )

    def healthy(self, service: str) -> None:
        """See `Observer.healthy`."""
        if self._health.troubles.pop(service, None) is not None:
            self._log.info(f"{service.capitalize()} works")

    def delivered(self, last: RowId, messages: int, seconds: float) -> None:
        """See `Observer.delivered`."""
        self._log.debug("Updates acknowledged", seq=last.seq, messages=messages, ms=round(seconds * 1000, 2))

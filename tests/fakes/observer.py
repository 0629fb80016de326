"""`Observer` that remembers what it was told."""

from dataclasses import dataclass, field

from listener.application.changes import ChangeSet
from listener.application.interfaces import RowId
from listener.domain.value_objects import BlockRef


@dataclass(slots=True)
class RecordingObserver:
    """Everything a service said of itself."""

    commits: list[ChangeSet] = field(default_factory=list)
    progressed: list[tuple[int, int, int]] = field(default_factory=list)
    syncs: list[tuple[bool, int]] = field(default_factory=list)
    troubles: list[tuple[str, Exception, float]] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    deliveries: list[tuple[RowId, int]] = field(default_factory=list)
    leads: list[bool] = field(default_factory=list)
    terms_ended: list[Exception] = field(default_factory=list)
    stalls: list[tuple[BlockRef, int | None]] = field(default_factory=list)
    audits: list[tuple[BlockRef, int]] = field(default_factory=list)
    missed: list[tuple[int, int]] = field(default_factory=list)
    differences: list[tuple[BlockRef, str, bool]] = field(default_factory=list)

    def committed(self, changes: ChangeSet, seconds: float) -> None:  # noqa: ARG002 - of the port
        """See `Observer.committed`."""
        self.commits.append(changes)

    def progress(self, number: int, target: int, trades: int) -> None:
        """See `Observer.progress`."""
        self.progressed.append((number, target, trades))

    def synced(self, *, synced: bool, number: int) -> None:
        """See `Observer.synced`."""
        self.syncs.append((synced, number))

    def leading(self, *, leads: bool) -> None:
        """See `Observer.leading`."""
        self.leads.append(leads)

    def superseded(self, error: Exception) -> None:
        """See `Observer.superseded`."""
        self.terms_ended.append(error)

    def stalled(self, tip: BlockRef, age_ms: int | None) -> None:
        """See `Observer.stalled`."""
        self.stalls.append((tip, age_ms))

    def audited(self, block: BlockRef, differences: int) -> None:
        """See `Observer.audited`."""
        self.audits.append((block, differences))

    def audit_missed(self, first: int, last: int) -> None:
        """See `Observer.audit_missed`."""
        self.missed.append((first, last))

    def audit_difference(self, block: BlockRef, detail: str, *, repaired: bool) -> None:
        """See `Observer.audit_difference`."""
        self.differences.append((block, detail, repaired))

    def trouble(self, service: str, error: Exception, retry_in_s: float) -> None:
        """See `Observer.trouble`."""
        self.troubles.append((service, error, retry_in_s))

    def healthy(self, service: str) -> None:
        """See `Observer.healthy`."""
        self.health.append(service)

    def delivered(self, last: RowId, messages: int, seconds: float) -> None:  # noqa: ARG002 - of the port
        """See `Observer.delivered`."""
        self.deliveries.append((last, messages))

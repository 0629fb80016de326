"""`Observer` that remembers what it was told."""

from dataclasses import dataclass, field

from listener.application.interfaces import RowId
from listener.application.state import ChangeSet


@dataclass(slots=True)
class RecordingObserver:
    """Everything a service said of itself."""

    commits: list[ChangeSet] = field(default_factory=list)
    progressed: list[tuple[int, int, int]] = field(default_factory=list)
    syncs: list[tuple[bool, int]] = field(default_factory=list)
    troubles: list[tuple[str, Exception, float]] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    deliveries: list[tuple[RowId, int]] = field(default_factory=list)

    def committed(self, changes: ChangeSet, seconds: float) -> None:  # noqa: ARG002 - of the port
        """See `Observer.committed`."""
        self.commits.append(changes)

    def progress(self, number: int, target: int, trades: int) -> None:
        """See `Observer.progress`."""
        self.progressed.append((number, target, trades))

    def synced(self, *, synced: bool, number: int) -> None:
        """See `Observer.synced`."""
        self.syncs.append((synced, number))

    def trouble(self, service: str, error: Exception, retry_in_s: float) -> None:
        """See `Observer.trouble`."""
        self.troubles.append((service, error, retry_in_s))

    def healthy(self, service: str) -> None:
        """See `Observer.healthy`."""
        self.health.append(service)

    def delivered(self, last: RowId, messages: int, seconds: float) -> None:  # noqa: ARG002 - of the port
        """See `Observer.delivered`."""
        self.deliveries.append((last, messages))

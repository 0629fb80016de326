"""What a run is made of: a chain, limits, faults, and who runs when. Everything follows from a seed."""

from dataclasses import dataclass, field
from functools import lru_cache

from listener.application.rules import Finality, Rules
from listener.infrastructure.blockchain.bloom import BloomPolicy
from tests.fakes.build import rules
from tests.simulation.backend import BackendFaults
from tests.simulation.ledger import Ledger
from tests.simulation.node import NodeFaults, Pages
from tests.simulation.store import StoreFaults
from tests.simulation.timeline import DEPLOYED, Pace, Timeline, write_timeline


@dataclass(frozen=True)
class HintFaults:
    """What may go wrong with announced heads, each a share of them."""

    drop: float = 0
    late: float = 0
    double: float = 0
    nonsense: float = 0


@dataclass(frozen=True)
class ProcessFaults:
    """How often listeners end, and how far the wall clock jumps.

    Attributes:
        crashes: killed without warning.
        stops: asked to stop, as a restart does.
        clock_ms: farthest jump of the wall clock.
        clock_jumps: how often it jumps.
    """

    crashes: int = 0
    stops: int = 0
    clock_ms: int = 0
    clock_jumps: int = 0


@dataclass(frozen=True)
class Faults:
    """Everything that may go wrong."""

    node: NodeFaults = field(default_factory=NodeFaults)
    store: StoreFaults = field(default_factory=StoreFaults)
    backend: BackendFaults = field(default_factory=BackendFaults)
    hints: HintFaults = field(default_factory=HintFaults)
    process: ProcessFaults = field(default_factory=ProcessFaults)


@dataclass(frozen=True)
class Limits:
    """Bounds of the services."""

    poll_s: float = 5.0
    range_blocks: int = 4
    requests: int = 2
    commit_trades: int = 3
    cached_markets: int = 2
    batch_rows: int = 20
    message_bytes: int = 3_000
    outbox_rows: int = 10_000


@dataclass(frozen=True)
class Plan:
    """One run.

    Attributes:
        scenario: its name.
        seed: draws schedule, delays and faults.
        chain_seed: draws the chain.
        backend: whether there is one.
        instances: listeners at once.
        start: the first block that matters; None: where the factory was deployed.
        bloom: what listeners make of blooms.
        stretch: leases last and are renewed so much longer, on chains that are slower.
        second: the audit asks for logs in ranges, not for receipts.
        whole: every commit must hold all logs of its blocks; otherwise only what comes out in the end counts.
        crash: the first listener is killed after so many handles; 0: it is not.
        drops_what_the_dead_sent: commands that a killed listener had under way are lost.
        handles_max: a run of more handles goes round in circles.
    """

    scenario: str
    seed: int
    chain_seed: int
    pace: Pace = field(default_factory=Pace)
    rules: Rules = field(default_factory=lambda: rules("5m", "1d", finality=Finality(6), audit_blocks=6))
    limits: Limits = field(default_factory=Limits)
    faults: Faults = field(default_factory=Faults)
    backend: bool = True
    instances: int = 1
    start: int | None = 1
    bloom: BloomPolicy = "lenient"
    stretch: float = 1
    second: bool = False
    whole: bool = True
    crash: int = 0
    drops_what_the_dead_sent: bool = False
    handles_max: int = 40_000

    @property
    def finality(self) -> int:
        """Deepest fork that can be undone."""
        return self.rules.finality.blocks

    def setting(self) -> "Setting":
        """What all runs on the same chain share."""
        base = DEPLOYED - 1 if self.start is None else self.start - 1
        return _setting(self.scenario, self.chain_seed, self.pace, _Hashed(self.rules), base)


@dataclass(frozen=True)
class Setting:
    """A chain, and what is worked out of it once."""

    timeline: Timeline
    ledger: Ledger
    pages: Pages


class _Hashed:
    """Rules as a key."""

    def __init__(self, by: Rules) -> None:
        self.rules = by

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashed) and self.rules == other.rules

    def __hash__(self) -> int:
        return hash(self.rules.intervals)


@lru_cache(maxsize=16)
def _setting(scenario: str, chain_seed: int, pace: Pace, by: _Hashed, base: int) -> Setting:
    timeline = write_timeline(f"{scenario}/{chain_seed}", pace, by.rules.finality.blocks)
    return Setting(timeline, Ledger(timeline, by.rules, base), Pages())

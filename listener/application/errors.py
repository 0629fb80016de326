"""Errors of the application: either it passes, or somebody has to act.

```
ListenerError
├── Superseded                the head is not what we left: recover, if the stream is still ours
├── WebhookConflict           what is asked of a webhook endpoint does not fit its state
├── Displaced                 a webhook endpoint was changed while it was delivered to
├── OrphanedHead              the stored head is not on the node's chain, and cannot be compared with it
├── Retryable                 wait and try again; nothing was lost
│   ├── NodeUnavailable         no answer, an HTTP error, a rate limit
│   │   ├── NodeSlow              no answer in time
│   │   └── NodeLimited           we ask more than the endpoint allows
│   ├── NodeBehind              the node does not know the block yet
│   ├── InconsistentReply       two answers of the node contradict each other
│   ├── RangeTooLarge           the node refuses a range for its size
│   ├── BlockNotFinal           a reader asks for a block that may still change
│   ├── NotRecorded             final blocks cannot be recorded for listing services
│   ├── StoreUnavailable        Redis did not answer, or we cannot know whether it did
│   ├── BackendUnavailable      the backend is away or did not acknowledge in time
│   ├── BackendRefused          the backend answered, but not `{"ok": true}`
│   ├── GatewayStopped          the gateway's process ended, or hangs
│   └── WebhooksStopped         the process that delivers webhooks ended, or hangs
└── Fatal                     stop; the message says what to do
    ├── InvalidConfiguration    a setting is missing or malformed
    ├── WrongChain              the node serves another chain than CHAIN_ID
    ├── ChainRestarted          same chain id, another chain: a dev chain began anew
    ├── ForeignData             Redis holds data of something else
    ├── TornData                Redis applied a part of a commit
    ├── InterruptedReset        a removal of stored data was broken off
    ├── NewerSchema             Redis holds data of a newer version of this service
    ├── SettingsChanged         a setting that gives stored data its meaning was changed
    ├── ReorgTooDeep            a fork below what can be undone
    ├── StoreMisused            Redis refuses a command: password, permissions, a key of another type
    ├── NodeUnsuitable          the node refuses a method that we cannot do without
    └── HandlerStopped          a handler failed for good, and was to stop rather than to skip
```
"""

from typing import ClassVar


class ListenerError(Exception):
    """Everything this service raises on purpose."""


class Retryable(ListenerError):
    """Wait and try again; nothing was lost.

    Attributes:
        service: which of the services we depend on failed.
    """

    service: ClassVar[str] = "node"


class NodeUnavailable(Retryable):
    """The node gave no usable answer."""


class NodeBehind(Retryable):
    """The node does not know a block that it, or its neighbour, has announced."""


class InconsistentReply(Retryable):
    """Two answers of the node contradict each other."""


class RangeTooLarge(Retryable):
    """The node refuses a range of blocks for its size; ask for a smaller one."""


class BlockNotFinal(Retryable):
    """A reader asks for a block that may still change, or that is not there yet."""

    service = "listings"


class NotRecorded(Retryable):
    """Final blocks cannot be recorded for listing services; the chain is followed as before."""

    service = "listings"


class StoreUnavailable(Retryable):
    """Redis did not answer; whether it acted is settled by reading the head."""

    service = "redis"


class BackendUnavailable(Retryable):
    """The backend is away or did not acknowledge in time."""

    service = "backend"


class BackendRefused(Retryable):
    """The backend answered, but not with `{"ok": true}`."""

    service = "backend"


class GatewayStopped(Retryable):
    """The gateway's process ended, hangs, or did not start; it is started again."""

    service = "gateway"


class WebhooksStopped(Retryable):
    """The process that delivers webhooks ended, hangs, or did not start; it is started again."""

    service = "webhooks"


class Superseded(ListenerError):
    """The store's head is not what we left there: another instance wrote, or the store lost its tail."""


class WebhookConflict(ListenerError):
    """What is asked of a webhook endpoint does not fit its state; the message says why."""


class Displaced(ListenerError):
    """A webhook endpoint is not any more what this delivery of it was begun with."""


class OrphanedHead(ListenerError):
    """A stored head is not on the node's chain: what stands on it cannot be compared with the chain."""


class Fatal(ListenerError):
    """Somebody has to act; the message says how."""

    exit_code = 1


class InvalidConfiguration(Fatal):
    """A setting is missing or malformed."""

    exit_code = 2


class WrongChain(Fatal):
    """The node serves another chain than `CHAIN_ID`."""

    exit_code = 3


class ChainRestarted(Fatal):
    """Same chain id, another chain."""

    exit_code = 4


class ForeignData(Fatal):
    """Redis holds data that is not ours to touch."""

    exit_code = 4


class NewerSchema(Fatal):
    """Redis was written by a newer version."""

    exit_code = 4


class TornData(Fatal):
    """A part of what was committed is not stored: the rest cannot be trusted."""

    exit_code = 4


class InterruptedReset(Fatal):
    """A removal of stored data was broken off: what is left is not whole."""

    exit_code = 4


class SettingsChanged(Fatal):
    """A setting that gives stored data its meaning differs from when the data was written."""

    exit_code = 4


class ReorgTooDeep(Fatal):
    """The chain forked below the oldest block that can be undone."""

    exit_code = 5


class StoreMisused(Fatal):
    """Redis refused a command for what it says: wrong password, no permission, a key of another type."""

    exit_code = 7


class NodeUnsuitable(Fatal):
    """The node refuses a method that we cannot do without."""

    exit_code = 7


class HandlerStopped(Fatal):
    """A handler failed for good, and was to stop rather than to skip: its events wait."""


class NodeSlow(NodeUnavailable):
    """The node did not answer in time."""


class NodeLimited(NodeUnavailable):
    """The endpoint allows no more requests for now.

    Args:
        retry_after_s: when to come again, if the endpoint said so.
    """

    def __init__(self, message: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

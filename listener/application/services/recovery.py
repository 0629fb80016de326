"""How a term begins: the chain is the right one, what is stored is ours, and nobody else writes from here on.

There is no other way to start, after a crash or without one.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from listener.application.changes import Head
from listener.application.errors import (
    ChainRestarted,
    SettingsChanged,
    StoreUnavailable,
    Superseded,
    WrongChain,
)
from listener.application.interfaces import (
    ChainIdentity,
    ChainSource,
    Clock,
    Lease,
    MarketStore,
    StoredStream,
)
from listener.application.state import StreamState
from listener.domain.value_objects import Address, BlockRef

RESET_HINT: Final = "run `listener reset` to forget the stored data and load the chain from the start"
RESYNC_HINT: Final = (
    "run `listener resync{}`, which builds them anew beside the stored ones and switches over when done"
)


class Recovery:
    """Finds the committed head and takes the stream over.

    Remembers, for the life of the process, what a store that loses its tail cannot say: the chain's identity,
    the head that was left, and the numbers that were used.

    Args:
        lease: without it the stream is not taken over; None: nobody else wants it.
        factories: their oldest deployment is the first block that matters, unless `start` says.
        fingerprint: settings that give stored data its meaning, by name.
    """

    def __init__(
        self,
        *,
        chain: ChainSource,
        store: MarketStore,
        clock: Clock,
        lease: Lease | None,
        factories: Iterable[Address],
        chain_id: int,
        start: int | None,
        fingerprint: Mapping[str, str],
    ) -> None:
        self._chain = chain
        self._store = store
        self._clock = clock
        self._lease = lease
        self._factories = sorted(factories)
        self._chain_id = chain_id
        self._start = start
        self._fingerprint = fingerprint
        self._identity: ChainIdentity | None = None
        self._left: Head | None = None
        self._numbers_used = 0

    def leave(self, head: Head) -> None:
        """This is what was committed when the state was forgotten."""
        self._left = head

    def used(self, number: int) -> None:
        """`number` may be stored as a `gen`, whether the store remembers it or not."""
        self._numbers_used = max(self._numbers_used, number)

    async def identify(self) -> ChainIdentity:
        """The chain that the node serves.

        Raises:
            WrongChain: it is not the one that the settings name.
            ChainRestarted: it is not the one that it was before.
        """
        identity = await self._chain.identity()
        if identity.chain_id != self._chain_id:
            raise WrongChain(
                f"the node serves chain {identity.chain_id}, CHAIN_ID says {self._chain_id}: "
                "set CHAIN_ID or BLOCKCHAIN_HTTP_URL right; nothing was written"
            )
        if self._identity not in {None, identity}:
            raise ChainRestarted(f"the node's genesis has changed to {identity.genesis}; {RESET_HINT}")
        self._identity = identity
        return identity

    async def take_over(self, identity: ChainIdentity) -> StreamState:
        """What is stored, after a check; whoever wrote before can no longer.

        Raises:
            ChainRestarted, SettingsChanged: it was made from another chain, or with other settings.
            Superseded: the lease has gone, or somebody else took over meanwhile.
        """
        stored = await self._stored(identity)
        self._check(stored, identity)
        state = stored.state
        if self._left is not None and (state.head.epoch, state.head.seq) < (self._left.epoch, self._left.seq):
            state.resync_owed = True
        self._numbers_used = max(
            self._clock.now(), self._numbers_used + 1, state.head.epoch + 1, state.head.gen + 1
        )
        if self._lease is not None and not await self._lease.hold():
            raise Superseded("the lease has gone to another instance")
        state.head = await self._store.take_over(
            state.head, self._numbers_used, resync_owed=state.resync_owed
        )
        return state

    async def _stored(self, identity: ChainIdentity) -> StoredStream:
        """The stream, made if there is none."""
        stored = await self._store.load()
        if stored is None:
            base = await self._base()
            await self._store.initialise(identity, base, self._fingerprint, self._clock.now())
            stored = await self._store.load()
        if stored is None:
            raise StoreUnavailable("the stream vanished right after it was created")
        return stored

    async def _base(self) -> BlockRef:
        """The block below the first one that matters."""
        start = self._start
        if start is None:
            start = min([await self._chain.deployment_block(factory) for factory in self._factories])
        return await self._chain.block(max(start - 1, 0))

    def _check(self, stored: StoredStream, identity: ChainIdentity) -> None:
        if stored.chain_id != identity.chain_id or stored.genesis != identity.genesis:
            raise ChainRestarted(
                f"Redis holds chain {stored.chain_id} with genesis {stored.genesis}, the node has genesis "
                f"{identity.genesis}: a dev chain that was restarted, or another node; {RESET_HINT}"
            )
        changed = [
            f"{name} was {stored.fingerprint.get(name)!r}, is {value!r}"
            for name, value in self._fingerprint.items()
            if stored.fingerprint.get(name) != value
        ]
        if changed:
            raise SettingsChanged(
                f"stored candles were made with other settings ({'; '.join(changed)}): "
                f"set them back, or {RESYNC_HINT.format('')}"
            )
        if self._start is not None and self._start <= stored.state.base and stored.state.base > 0:
            raise SettingsChanged(
                f"START_BLOCK={self._start}, but the stored data begins after block {stored.state.base}: "
                f"leave START_BLOCK as it was, or {RESYNC_HINT.format(f' --from {self._start}')}"
            )

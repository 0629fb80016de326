"""Wiring of the commands that load the chain anew beside the stored data: `resync` and `verify`."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import Final

from listener.application.errors import InvalidConfiguration, StoreUnavailable
from listener.application.interfaces import ChainSource, Lease
from listener.application.services.follower import Follower
from listener.application.services.leadership import while_holding
from listener.application.services.rebuild import Difference, OneMarket, Rebuilder
from listener.config.settings import Settings
from listener.domain.value_objects import MarketId
from listener.infrastructure.blockchain.heads import HintSlot
from listener.infrastructure.clock import LocalSignal, SystemClock
from listener.infrastructure.observability.health import Health
from listener.infrastructure.observability.logs import SecretMask
from listener.infrastructure.observability.observer import LogObserver
from listener.infrastructure.observability.progress import ProgressDisplay
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.generations import RedisGenerations
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.lease import RedisLease
from listener.infrastructure.redis.maintenance import find_market
from listener.infrastructure.redis.outbox import OutboxBounds
from listener.infrastructure.redis.store import RedisStore
from listener.wiring import Node, follower_limits

TIMEOUT_S: Final = 60.0
"""Of one Redis command: switching generations holds the server for some time."""


class Rebuilding:
    """A second generation of the stream, filled by a follower of its own.

    Args:
        settings: those of the service.
        start: first block that matters; None: as the settings say, or as the stored data begins.
    """

    def __init__(self, settings: Settings, start: int | None) -> None:
        self._settings = settings
        self._start = settings.start_block if start is None else start
        self._clock = SystemClock()
        self._observer = LogObserver(Health(), ProgressDisplay(), SecretMask(settings.secrets()))

    async def resync(self) -> int:
        """Fill the generation and put it in the place of the live one; the number of the new head."""
        async with AsyncExitStack() as stack:
            node, database = self._connect(stack)
            rebuilder, lease = await self._beside("resync", node.source, database)
            return await self._alone(lease, rebuilder.resync)

    async def verify(self, market: str | None, tell: Callable[[Difference], None]) -> int:
        """Fill the generation, compare it with the live one, and remove it; the number of differences.

        Args:
            market: id, or symbol of a recent one; None: all.
            tell: gets each difference.

        Raises:
            InvalidConfiguration: there is no such market.
        """
        async with AsyncExitStack() as stack:
            node, database = self._connect(stack)
            source: ChainSource = node.source
            only: list[MarketId] | None = None
            if market is not None:
                market_id, emitter = await self._emitter(database, market)
                only, source = [market_id], OneMarket(node.source, market_id, emitter)
            rebuilder, lease = await self._beside("verify", source, database)
            return await self._alone(lease, partial(self._compare, rebuilder, only, tell))

    @staticmethod
    async def _compare(
        rebuilder: Rebuilder, only: list[MarketId] | None, tell: Callable[[Difference], None]
    ) -> int:
        found = 0
        await rebuilder.clear()
        try:
            async for differences in rebuilder.verify(only):
                found += len(differences)
                for difference in differences:
                    tell(difference)
        finally:
            await rebuilder.clear()
        return found

    async def _alone(self, lease: Lease, work: Callable[[], Awaitable[int]]) -> int:
        """Work while nobody else does the same.

        Raises:
            InvalidConfiguration: somebody does.
        """
        if not await lease.hold():
            raise InvalidConfiguration("another `listener resync` or `verify` is under way on this Redis")
        try:
            return await while_holding(lease, self._clock, work)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            with suppress(StoreUnavailable):
                await lease.release()

    async def _emitter(self, database: Database, wanted: str) -> tuple[MarketId, str]:
        keys = Keys(self._settings.chain_id)
        market = await find_market(database, keys, wanted)
        if market is None:
            raise InvalidConfiguration(f"there is no market {wanted} in Redis")
        emitter = await database.run("HGET", keys.market(market), "emitter")
        return MarketId(market), emitter.decode()

    def _connect(self, stack: AsyncExitStack) -> tuple[Node, Database]:
        node = Node.connect(self._settings, self._observer)
        stack.push_async_callback(node.close)
        database = Database.connect(str(self._settings.redis_url), TIMEOUT_S)
        stack.push_async_callback(database.close)
        return node, database

    async def _beside(
        self, generation: str, source: ChainSource, database: Database
    ) -> tuple[Rebuilder, Lease]:
        settings = self._settings
        rules = replace(settings.rules(), audit_blocks=0)
        live = Keys(settings.chain_id)
        beside = live.beside(generation)
        start = self._start
        if start is None:
            base = await database.run("HGET", live.settings, "base")
            start = None if base is None else int(base) + 1
        bounds = OutboxBounds(settings.outbox_max_rows, settings.outbox_max_bytes)
        lease = RedisLease(database, beside, settings.lease_ms)
        follower = Follower(
            chain=source,
            hints=HintSlot(1.0),
            store=RedisStore(database, beside, rules, bounds),
            clock=self._clock,
            observer=self._observer,
            signal=LocalSignal(),
            audit_wanted=LocalSignal(),
            rules=rules,
            limits=follower_limits(settings),
            chain_id=settings.chain_id,
            start=start,
            fingerprint={**settings.fingerprint(), "FROM": str(start)},
            tell_backend=False,
            lease=lease,
        )
        rebuilder = Rebuilder(
            follower=follower,
            chain=source,
            generations=RedisGenerations(database, live, beside, rules),
            clock=self._clock,
            observer=self._observer,
        )
        return rebuilder, lease

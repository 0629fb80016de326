"""Wiring of webhooks: alone (`listener webhooks run`), or as the process that `listener.main` starts."""

import argparse
import asyncio
import os
import random
import sys
from contextlib import AsyncExitStack
from typing import Final

import structlog

from listener.application.envelopes import Envelope
from listener.application.errors import InvalidConfiguration
from listener.application.services.leadership import Leadership
from listener.application.services.supervisor import keep_running
from listener.application.services.webhook_lane import Tools
from listener.application.services.webhooks import Webhooks
from listener.config.settings import ReaderSettings, Settings, load_settings
from listener.infrastructure.child_process import Parent
from listener.infrastructure.clock import LocalSignal, SystemClock
from listener.infrastructure.observability.logs import SecretMask, configure
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.lease import RedisLease
from listener.infrastructure.redis.outbox import RedisOutbox
from listener.infrastructure.redis.row_feed import RowFeed
from listener.infrastructure.redis.webhook_store import RedisWebhooks, consumer_of
from listener.infrastructure.webhooks.observer import WebhookLog
from listener.infrastructure.webhooks.transport import HttpTransport
from listener.running import until_stopped

NICER: Final = 5
"""How much lower our priority is than the follower's: where processors are scarce, blocks come first."""
FEED_TIMEOUT_S: Final = 5.0
"""Least time for an answer to the feed, whose reads wait for rows for a second."""
LEASE: Final = "webhooks"


class Delivery:
    """All parts, wired. Of several on one stream one delivers, the others stand by.

    Args:
        settings: those of the service.
    """

    def __init__(self, settings: Settings) -> None:
        self._clock = SystemClock()
        self._observer = WebhookLog(SecretMask(settings.secrets()))
        url, timeout_s, keys = (
            str(settings.redis_url),
            settings.redis_timeout_ms / 1000,
            Keys(settings.chain_id),
        )
        self._database = Database.connect(url, timeout_s)
        self._feed_database = Database.connect(url, max(timeout_s, FEED_TIMEOUT_S))
        self._transport = HttpTransport(private=settings.webhooks_allow_private)
        self._feed = RowFeed(self._feed_database, keys)
        tools = Tools(
            RedisWebhooks(self._database, keys),
            self._transport,
            self._clock,
            self._observer,
            random.SystemRandom().random,
            Envelope(settings.chain_id, keys.stream),
        )
        self._webhooks = Webhooks(
            tools,
            lambda endpoint: RedisOutbox(self._database, keys, consumer_of(endpoint)),
            LocalSignal,
            self._clock,
            self._observer,
        )
        self._feed.subscribe(lambda _batch: self._webhooks.notify())
        lease = RedisLease(self._database, keys, settings.lease_ms, LEASE)
        self._leadership = Leadership(lease, self._webhooks.run, self._clock, self._observer)

    async def run(self, parent: Parent | None = None) -> None:
        """Deliver until cancelled, or until the parent process is gone.

        Raises:
            ExceptionGroup: with the `Fatal` error of the part that failed.
        """
        async with AsyncExitStack() as stack:
            for part in (self._database, self._feed_database, self._transport):
                stack.push_async_callback(part.close)
            async with asyncio.TaskGroup() as tasks:
                works = [
                    tasks.create_task(keep_running(part, self._clock, self._observer), name=name)
                    for name, part in (("webhooks", self._leadership.run), ("feed", self._feed.run))
                ]
                if parent:
                    await parent.beat()
                    for work in works:
                        work.cancel()


def run_alone(settings: Settings) -> int:
    """`listener webhooks run`; the exit code."""
    configure(settings.log_level, settings.log_file, settings.secrets())
    structlog.get_logger("listener.webhooks").info("Webhooks started")
    return asyncio.run(until_stopped(lambda: Delivery(settings).run()))


def main() -> int:
    """Entry point of the child process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parent", type=int, required=True)
    arguments = parser.parse_args()
    try:
        settings = load_settings(ReaderSettings)
    except InvalidConfiguration as error:
        sys.stderr.write(f"Error in the settings:\n{error}\n")
        return error.exit_code
    configure(settings.log_level, settings.log_file, settings.secrets())
    os.nice(NICER)
    return asyncio.run(until_stopped(lambda: Delivery(settings).run(Parent(arguments.parent))))


if __name__ == "__main__":
    sys.exit(main())

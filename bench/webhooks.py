"""Throughput of webhooks: messages and rows a second to local endpoints, and how late a row is.

    .venv/bin/python -m bench.webhooks
    .venv/bin/python -m bench.webhooks --endpoints 1 10 --rows 30000 --rounds 3

An embedded Valkey, the delivering process as in production (`listener webhooks run`), and one receiver that
answers 204 at once in a process of its own, for all endpoints. Two figures for each number of endpoints:

* `backlog`: rows are in the outbox before endpoints are enabled; from then (it takes half a second until that
  is noticed) until all have all of them. Full messages of 100 trades.
* `live`: 20 rows a second, each committed alone; from its commit to its arrival at each endpoint.

Rows are trades of 600 bytes. Medians over the rounds. Prints a table, with `--json` all figures.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from listener.application.services.webhook_admin import UrlRules, WebhookAdmin
from listener.demo.processes import Child, start_valkey
from listener.infrastructure.clock import SystemClock
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.outbox import RedisOutbox
from listener.infrastructure.redis.webhook_store import RedisWebhooks

CHAIN_ID: Final = 31337
KEYS: Final = Keys(CHAIN_ID)
LIVE_ROWS: Final = 100
LIVE_EVERY_S: Final = 0.05
BOUND_S: Final = 120.0
EPOCH: Final = 1


def trade(seq: int, now_ms: float) -> bytes:
    """A row of usual size, with the time at which it was made."""
    filler = {"s": "0x" + "a" * 40, "tx": "0x" + "b" * 64, "bh": "0x" + "c" * 64, "trader": "0x" + "d" * 40}
    figures = {"p": "0.000000001512345678901234", "xp": "0.000000001512345678901234", "v": "123456.789"}
    return json.dumps({"id": f"{seq}-0", "at": now_ms, **filler, **figures, "pad": "x" * 150}).encode()


async def receive() -> None:
    """The receiver: counts, and prints what came when it is asked to."""
    from aiohttp import web  # noqa: PLC0415 - the receiver's process only

    rows: dict[str, int] = {}
    messages = 0
    late_ms: list[float] = []

    async def take(request: web.Request) -> web.Response:
        nonlocal messages
        said = json.loads(await request.read())
        now_ms = time.time() * 1000
        messages += 1
        rows[request.path] = rows.get(request.path, 0) + len(said["items"])
        late_ms.extend(now_ms - item["at"] for item in said["items"])
        return web.Response(status=204)

    async def told(_request: web.Request) -> web.Response:
        return web.json_response({"rows": rows, "messages": messages})

    async def late(_request: web.Request) -> web.Response:
        return web.json_response(late_ms)

    async def forget(_request: web.Request) -> web.Response:
        nonlocal messages
        rows.clear()
        late_ms.clear()
        messages = 0
        return web.Response()

    app = web.Application(client_max_size=2_000_000)
    app.router.add_get("/told", told)
    app.router.add_get("/late", late)
    app.router.add_delete("/told", forget)
    app.router.add_post("/{name}", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(f"port {runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


class Bench:
    """One Valkey, one receiver, one delivering process."""

    def __init__(self, database: Database, port: int, session: Any) -> None:  # noqa: ANN401 - imported late
        self._database = database
        self._url = f"http://127.0.0.1:{port}"
        self._session = session
        rules = UrlRules(insecure=True, private=True)
        records, outbox = RedisWebhooks(database, KEYS), RedisOutbox(database, KEYS)
        self._admin = WebhookAdmin(records, outbox, SystemClock(), rules)
        self._seq = 0

    async def commit(self, rows: int) -> None:
        """Append rows."""
        commands = []
        for _ in range(rows):
            self._seq += 1
            data = trade(self._seq, time.time() * 1000)
            commands.append(("XADD", KEYS.outbox, f"{EPOCH}-{self._seq}", "e", "trade_update", "d", data))
        await self._database.run_all(commands)

    async def told(self, path: str = "/told") -> Any:  # noqa: ANN401 - JSON
        """What the receiver says: how much has arrived, or how late each row was."""
        async with self._session.get(self._url + path) as answer:
            return await answer.json()

    async def until(self, endpoints: int, rows: int) -> dict[str, Any]:
        """What has arrived once every endpoint has so many rows."""
        async with asyncio.timeout(BOUND_S):
            while True:
                found: dict[str, Any] = await self.told()
                if len(found["rows"]) == endpoints and min(found["rows"].values()) >= rows:
                    return found
                await asyncio.sleep(0.02)

    async def round(self, endpoints: int, rows: int) -> dict[str, float]:
        """Both figures."""
        await self._session.delete(self._url + "/told")
        made = [await self._admin.create(f"{self._url}/{number}") for number in range(endpoints)]
        for endpoint in made:
            await self._admin.disable(endpoint.id)
        await self.commit(rows)
        await asyncio.sleep(1)
        began = time.monotonic()
        for endpoint in made:
            await self._admin.enable(endpoint.id)
        found = await self.until(endpoints, rows)
        took_s = time.monotonic() - began
        await self._session.delete(self._url + "/told")
        for _ in range(LIVE_ROWS):
            await self.commit(1)
            await asyncio.sleep(LIVE_EVERY_S)
        await self.until(endpoints, LIVE_ROWS)
        late_ms = await self.told("/late")
        for endpoint in made:
            await self._admin.delete(endpoint.id)
        await self._database.run("XTRIM", KEYS.outbox, "MAXLEN", 1)
        cuts = statistics.quantiles(late_ms, n=100)
        return {
            "messages_per_s": found["messages"] / took_s,
            "rows_per_s": endpoints * rows / took_s,
            "backlog_s": took_s,
            "live_p50_ms": cuts[49],
            "live_p99_ms": cuts[98],
        }


async def measure(counts: list[int], rows: int, rounds: int) -> dict[int, dict[str, float]]:
    """Medians by number of endpoints."""
    import aiohttp  # noqa: PLC0415 - as above

    with tempfile.TemporaryDirectory() as directory, start_valkey(Path(directory)) as valkey:
        url = f"redis://127.0.0.1:{valkey.port}/0"
        words = [sys.executable, "-m", "bench.webhooks", "--receive"]
        receiver = Child("receiver", words, ready=r"port (\d+)")
        settings = {"REDIS_URL": url, "CHAIN_ID": str(CHAIN_ID), "WEBHOOKS_ALLOW_PRIVATE": "true"}
        words = [sys.executable, "-c", "from listener.cli import main; main()", "webhooks", "run"]
        delivery = Child("delivery", words, environment=settings, ready="Delivering webhooks")
        database = Database.connect(url, 10.0)
        try:
            async with aiohttp.ClientSession() as session:
                bench = Bench(database, int(receiver.found), session)
                await bench.commit(1)
                found: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
                for _ in range(rounds):
                    for count in counts:
                        found[count].append(await bench.round(count, rows))
        finally:
            await database.close()
            delivery.stop()
            receiver.stop()
    return {
        count: {name: statistics.median(each[name] for each in taken) for name in taken[0]}
        for count, taken in found.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--endpoints", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--receive", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.receive:
        asyncio.run(receive())
        return
    found = asyncio.run(measure(arguments.endpoints, arguments.rows, arguments.rounds))
    print(f"{'endpoints':>9} {'messages/s':>11} {'rows/s':>9} {'live p50':>9} {'p99':>7}")
    for count, each in found.items():
        print(
            f"{count:>9} {each['messages_per_s']:>11.0f} {each['rows_per_s']:>9.0f}"
            f" {each['live_p50_ms']:>6.1f} ms {each['live_p99_ms']:>4.0f} ms"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()

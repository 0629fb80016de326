"""The wiring: a part that dies ends the process, and says so."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from listener.application.services.auditor import Auditor
from listener.application.services.follower import Follower
from listener.application.services.publisher import Publisher
from listener.config.settings import Settings
from listener.infrastructure.blockchain.heads import NewHeads
from listener.main import READERS_OUTBOX_BYTES, Service, serve
from tests.fakes.servers import valkey_server

PARTS = (Follower, Publisher, Auditor, NewHeads)


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A Valkey."""
    with valkey_server(tmp_path_factory.mktemp("valkey")) as port:
        yield port


@pytest.mark.parametrize("dying", PARTS)
async def test_a_part_that_dies_ends_the_process(
    dying: type, redis_port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An error that nobody foresaw, in any part: the others are ended, and the exit code is 1."""
    ended: list[type] = []

    def living(part: type) -> object:
        async def run(_self: object) -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(part)

        return run

    async def die(_self: object) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("nobody foresaw this")

    monkeypatch.chdir(tmp_path)
    for part in PARTS:
        monkeypatch.setattr(part, "run", die if part is dying else living(part))
    settings = Settings.model_validate(
        {
            "bonding_curve_factory_address": "0x" + "fa" * 20,
            "chain_id": 31337,
            "blockchain_http_url": "http://127.0.0.1:1",
            "blockchain_ws_url": "ws://127.0.0.1:1",
            "redis_url": f"redis://127.0.0.1:{redis_port}/0",
            "backend_socket_url": "http://127.0.0.1:1",
            "backend_auth_token": "a token of ours",
            "websocket_port": 0,
        }
    )
    async with asyncio.timeout(30):
        assert await serve(settings) == 1
    assert set(ended) == set(PARTS) - {dying}


@pytest.mark.parametrize(
    ("given", "keeps_rows", "kept"),
    [
        ({}, False, READERS_OUTBOX_BYTES),
        ({}, True, 128_000_000),
        ({"outbox_max_bytes": 50_000_000}, False, 50_000_000),
    ],
)
async def test_rows_are_kept_for_who_may_be_away(
    given: dict[str, int],
    keeps_rows: bool,
    kept: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Little is kept for live clients alone, all for handlers, and what was asked for where it was."""
    monkeypatch.chdir(tmp_path)
    settings = Settings.model_validate({"bonding_curve_factory_address": "0x" + "fa" * 20, **given})
    assert Service(settings, keeps_rows=keeps_rows)._outbox_bounds().bytes == kept

"""Real servers for whole-system tests: anvil, Valkey, the Node backend, the listener."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from listener.demo.processes import start_anvil, start_valkey
from tests.e2e.system import System


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A chain and a Valkey of this test's own; what the test starts on top is stopped after it."""
    valkey = start_valkey(tmp_path / "valkey")
    try:
        with start_anvil() as chain:
            whole = System(int(chain.found), int(valkey.port), tmp_path)
            try:
                yield whole
            finally:
                whole.close()
    finally:
        valkey.stop()


@pytest.fixture
def database(system: System) -> Iterator[redis.Redis]:
    """A plain client of the system's Valkey."""
    client = redis.Redis(port=system.redis_port, decode_responses=True)
    yield client
    client.close()

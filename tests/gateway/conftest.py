"""A gateway that all tests of one run share, and the data behind it."""

import asyncio
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from listener.domain.value_objects import MarketId
from tests.fakes.servers import valkey_server
from tests.gateway.serving import MARKETS, Served, write_markets


class Data(NamedTuple):
    """A Valkey with markets."""

    port: int
    markets: list[MarketId]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Data]:
    """Known markets."""
    with valkey_server(tmp_path_factory.mktemp("valkey")) as port:
        yield Data(port, asyncio.run(write_markets(port)))


@pytest.fixture(scope="session")
def gateway(data: Data) -> Iterator[Served]:
    """A gateway without keys and rates."""
    served = Served(data.port, GATEWAY_RATE_PER_S="0", GATEWAY_CORS_ORIGINS="https://app.example.org")
    try:
        deadline = time.monotonic() + 10
        while served.ask("/health").json["gateway"]["index"]["markets"] < MARKETS:
            assert time.monotonic() < deadline, "the index was not loaded"
            time.sleep(0.02)
        yield served
    finally:
        served.child.stop()

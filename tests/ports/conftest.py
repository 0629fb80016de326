"""Servers that all contract tests of one run share."""

from collections.abc import Iterator

import pytest

from tests.fakes.servers import redis_server, valkey_server


@pytest.fixture(scope="session")
def valkey_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of an embedded Valkey 9."""
    with valkey_server(tmp_path_factory.mktemp("valkey")) as port:
        yield port


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of the machine's Redis: 7 on Debian 12."""
    with redis_server(tmp_path_factory.mktemp("redis")) as port:
        yield port

"""The way of a contract developer: `npx hardhat node`, `scripts/deploy.js`, and the settings it prints."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import redis

from listener.demo.launchpad import ETHER, Launchpad
from listener.demo.processes import REPOSITORY, Child, start_valkey
from tests import oracle
from tests.e2e.system import CHAIN_ID, System

HARDHAT = REPOSITORY / "node_modules" / ".bin" / "hardhat"


@pytest.mark.timeout(120)
def test_hardhat_node_and_deploy_script(tmp_path: Path) -> None:
    """The lines that the script prints are all the listener needs to follow a Hardhat chain."""
    with (
        start_valkey(tmp_path / "valkey") as valkey,
        Child(
            "hardhat",
            [HARDHAT, "node", "--port", "0", "--hostname", "127.0.0.1"],
            ready=r"server at http://127\.0\.0\.1:(\d+)",
        ) as chain,
        redis.Redis(port=valkey.port, decode_responses=True) as database,
    ):
        system = System(int(chain.found), valkey.port, tmp_path)
        try:
            deployed = subprocess.run(
                [HARDHAT, "run", "scripts/deploy.js", "--network", "localhost"],
                cwd=REPOSITORY,
                env={**os.environ, "HARDHAT_RPC_URL": system.http},
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
            printed = dict(re.findall(r"(?m)^([A-Z_]+)=(\S+)$", deployed.stdout))
            factory = printed["BONDING_CURVE_FACTORY_ADDRESS"]
            launchpad = Launchpad(system.http, factory=factory)
            curve = launchpad.create("Hard Hat", "HAT")
            for trader in range(3):
                launchpad.buy(curve, ETHER // 10, trader)
            system.start_listener(**{"factory": factory, **printed}, ready="Following the head")
            launchpad.sell(curve, launchpad.balance(curve, 1) // 2, 1)
            tip = launchpad.web3.eth.block_number
            system.wait_for_block(tip)
            truth = oracle.compute(
                oracle.read_chain(oracle.http_rpc(system.http), 0, tip, [factory.lower()]),
                oracle.Settings(factories=[factory.lower()], intervals=("1m", "5m", "15m", "1h", "4h", "1d")),
            )
            assert [len(trades) for trades in truth.trades.values()] == [4]
            system.settle(lambda: oracle.compare_redis(database, CHAIN_ID, truth))
        finally:
            system.close()

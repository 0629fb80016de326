"""A chain under load. Its node may be killed, and comes back with what was saved last: a reorg to others."""

import gzip
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from web3 import Web3

from listener.demo.launchpad import ETHER, Launchpad, Parameters
from listener.demo.processes import Child, anvil_binary
from tests.e2e.scenario import Scenario

FINALITY_WINDOW: Final = 16
"""Less than is mined while a lease runs out: who takes over has history to load."""
FORK_MAX: Final = 14
"""Deepest fork, in blocks below the highest block that there ever was."""
MARKETS_FIRST: Final = 5
MARKETS_ALIVE_MIN: Final = 3


class Traffic(NamedTuple):
    """What traders do.

    Attributes:
        pause_s: between two blocks.
        trades_max: in a block; there is one at least.
        renewal: chance that a block comes with a new token.
        jumps: whether chain time runs ahead now and then.
        curves: of the factory.
    """

    pause_s: float = 0.08
    trades_max: int = 9
    renewal: float = 0.04
    jumps: bool = True
    curves: Parameters = Parameters(graduation_threshold=4 * ETHER, virtual_quote=3 * ETHER)


class Chain:
    """One node and the traders on it. Blocks come from a thread of its own, between `start` and `close`.

    Args:
        port: of the node, over all its lives.
        directory: for what is saved.
        seed: of what traders do.
        traffic: how busy they are.

    Attributes:
        node: the process.
        highest: the highest block that there ever was.
    """

    def __init__(self, port: int, directory: Path, seed: int, traffic: Traffic) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.highest = 0
        self._port = port
        self._saved = directory / "chain.json"
        self._log = directory / "node.log"
        self._traffic = traffic
        self._random = random.Random(seed)
        self._base = self._fork = 0
        self._genesis_s = int(time.time())
        self._mined: dict[int, float] = {}
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._alive = True
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._load, daemon=True)
        self.node = self._started()
        try:
            self.launchpad = Launchpad(self.url, traffic.curves)
            self.scenario = Scenario(self.launchpad, seed)
            for _ in range(MARKETS_FIRST):
                self.scenario.create()
            self.scenario.set_mining(automatic=False)
            self._base = self.highest = self.tip()
            self.save()
        except BaseException:
            self.node.kill()
            raise

    @property
    def factory(self) -> str:
        """Address of the factory."""
        return str(self.launchpad.factory.address)

    def start(self) -> None:
        """Begin to mine."""
        self._thread.start()

    def close(self) -> None:
        """Stop mining, and kill the node."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(10)
        self.node.kill()
        self.scenario.close()

    @contextmanager
    def still(self) -> Iterator[None]:
        """No block meanwhile.

        Raises:
            RuntimeError: the traffic has ended with an error.
        """
        with self._lock:
            if self._failure:
                raise RuntimeError("the traffic has ended") from self._failure
            yield

    def tip(self) -> int:
        """The newest block."""
        return self.scenario.tip()

    def holds(self, number: int, block: str) -> bool:
        """Whether a block is canonical."""
        found = self.launchpad.rpc("eth_getBlockByNumber", hex(number), False)  # noqa: FBT003 - JSON-RPC
        return bool(found and found["hash"] == block)

    def age_s(self, number: int) -> float:
        """How long ago a block was mined that is canonical now; 0 if there is none."""
        now = time.monotonic()
        return now - self._mined.get(number, now)

    def regrow(self) -> int:
        """Mine until there is a block above all that ever were; the tip."""
        with self.still():
            before = self.highest
            while self.highest <= before:
                self._block()
            return self.highest

    def reorg(self, depth: int) -> int:
        """Replace so many blocks, or fewer if others have gone before; how many."""
        with self.still():
            if not self._alive:
                return 0
            tip = self.tip()
            depth = min(depth, FORK_MAX - (self.highest - tip), tip - self._base)
            if depth < 1:
                return 0
            others = [self._other(depth) for _ in range(self._random.randrange(4))]
            self.launchpad.rpc("anvil_reorg", depth, others)
            self._fork = min(self._fork, tip - depth)
            self._mined |= dict.fromkeys(range(tip - depth + 1, tip + 1), time.monotonic())
            self.scenario.forget_lost()
            return depth

    def save(self) -> None:
        """Keep the chain as it is: what a killed node will come back with."""
        with self.still():
            if self._alive:
                state = self.launchpad.rpc("anvil_dumpState", True)  # noqa: FBT003 - JSON-RPC
                self._saved.write_bytes(gzip.decompress(bytes.fromhex(state[2:])))
                self._fork = self.tip()

    def kill(self) -> int:
        """SIGKILL; how many blocks are lost."""
        with self.still():
            if self.highest - self._fork > FORK_MAX:
                self.save()
            lost = self.tip() - self._fork
            self._alive = False
            self.node.kill()
            return lost

    def restart(self) -> None:
        """Start the node again with what was saved."""
        with self.still():
            self.node = self._started("--load-state", str(self._saved), "--no-mining")
            self._alive = True
            self._base = self.tip()  # anvil cannot undo blocks that it has loaded
            self.scenario.forget_lost()
            behind = self._time("latest") - self._time("pending")
            if behind > 0:  # the node's clock does not remember how far the chain was ahead of it
                self.scenario.pass_time(behind)

    def _started(self, *options: str) -> Child:
        place = ("--host", "127.0.0.1", "--port", str(self._port))
        same = ("--preserve-historical-states", "--timestamp", str(self._genesis_s))
        command: list[str | Path] = [anvil_binary(), *place, *same, *options]
        return Child("node", command, ready=r"Listening on", log=self._log)

    def _time(self, block: str) -> int:
        found = self.launchpad.rpc("eth_getBlockByNumber", block, False)  # noqa: FBT003 - JSON-RPC
        return int(found["timestamp"], 16)

    def _other(self, depth: int) -> list[Any]:
        """A buy in one of the blocks of a new branch."""
        curve = self._random.choice(self.scenario.curves)
        account = self._random.choice(self.launchpad.accounts)
        data = self.launchpad.at("BondingCurve", curve.address).encode_abi("buy", [0, account])
        value = hex(self._random.randrange(1, ETHER // 5))
        buy = {"from": account, "to": curve.address, "data": data, "value": value, "gas": hex(300_000)}
        return [buy | {"to": Web3.to_checksum_address(curve.address)}, self._random.randrange(depth)]

    def _load(self) -> None:
        try:
            while not self._stopped.wait(self._traffic.pause_s):
                with self._lock:
                    if self._alive:
                        self._block()
        except BaseException as error:  # noqa: BLE001 - told by `still`
            self._failure = error

    def _block(self) -> None:
        """One block of trades, seldom with a new token, odd logs or a jump in time."""
        scenario, traffic, dice = self.scenario, self._traffic, self._random
        if dice.random() < traffic.renewal or not scenario.curves:
            self._renew()
        if dice.random() < 0.04:
            scenario.strangers()
        if traffic.jumps and dice.random() < 0.12:
            scenario.pass_time(dice.choice((2, 12, 45, 61, 600)))
        scenario.trades(dice.randint(1, traffic.trades_max))
        number = scenario.block()
        self._mined[number] = time.monotonic()
        self.highest = max(self.highest, number)

    def _renew(self) -> None:
        """Leave tokens that have graduated, and create one; more if few are left."""
        scenario, at = self.scenario, self.launchpad.at
        scenario.curves = [
            curve
            for curve in scenario.curves
            if not at("BondingCurve", curve.address).functions.graduated().call()
        ]
        scenario.set_mining(automatic=True)
        scenario.create()
        while len(scenario.curves) < MARKETS_ALIVE_MIN:
            scenario.create()
        scenario.set_mining(automatic=False)

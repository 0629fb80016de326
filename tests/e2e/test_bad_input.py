"""Logs and tokens that lie, break their own signature, or are out of all proportion.

Whatever a chain says, Redis ends as the oracle's and the listener lives. Each world is shown twice: once
before the listener starts, which loads it by ranges, and once while it follows block by block.
"""

from typing import Any, Final

import pytest
from web3 import Web3
from web3.contract import Contract

from listener.demo.launchpad import ETHER, Launchpad
from tests import oracle
from tests.e2e.system import System

BIGGEST: Final = 2**256 - 1
NOBODY: Final = "0x" + "0" * 40
QUICK: Final = {"FINALITY_WINDOW": "1", "POLL_INTERVAL_MS": "50", "PROCESSING_INTERVAL_MS": "10"}
DATA_LENGTHS: Final = (0, 1, 31, 32, 63, 65, 160, 191, 193, 224)
TOPIC_COUNTS: Final = (1, 2, 3, 4)


class World:
    """A chain with a factory, one that announces anything, and an emitter of any log."""

    def __init__(self, system: System) -> None:
        self.launchpad: Launchpad = system.deploy()
        self.odd = self.deploy("OddFactory", "OddFactory")
        self.rogue = self.deploy("RogueEmitter", "RogueEmitter")
        self.someone = Web3.to_checksum_address(self.launchpad.accounts[3])
        self._pending: list[tuple[Any, int]] = []

    def deploy(self, file: str, contract: str, *arguments: object) -> Contract:
        """Deploy a contract for tests."""
        return self.launchpad.deploy(f"test/{file}.sol/{contract}", *arguments)

    def curve(self) -> Contract:
        """A new curve that says what it is told, not announced yet."""
        return self.deploy("OddFactory", "TestCurve")

    def token(self, kind: str = "Decimals6Token", *arguments: object) -> str:
        """A new token's address."""
        return str(self.deploy("OddTokens", kind, *arguments).address)

    def announce(self, token: str, curve: str, factory: Contract | None = None) -> None:
        """Queue an announcement by the odd factory."""
        by = (factory or self.odd).functions
        texts = ("Announced", "ANN")
        if factory is None:
            self.queue(by.announce(token, curve, self.someone, *texts))
        else:
            self.queue(by.emitCurveCreated(token, curve, self.someone, *texts))

    def queue(self, call: Any, gas: int = 300_000) -> None:
        """Keep a call for the next block."""
        self._pending.append((call, gas))

    def block(self) -> None:
        """Mine what is queued in one block, in order, and see that nothing of it failed."""
        self.launchpad.rpc("evm_setAutomine", False)  # noqa: FBT003 - the node's own method
        sender = self.launchpad.accounts[0]
        for call, gas in self._pending:
            call.transact({"from": sender, "gas": gas})
        self.launchpad.rpc("evm_mine")
        self.launchpad.rpc("evm_setAutomine", True)  # noqa: FBT003
        receipts = self.launchpad.rpc("eth_getBlockReceipts", "latest")
        assert [receipt["status"] for receipt in receipts] == ["0x1"] * len(self._pending)
        self._pending.clear()


def trade(token: str, base: int, quote: int, *, buy: bool = True, reserves: tuple[int, int] = (5, 7)) -> Any:
    """Arguments of `emitTrade`."""
    return token, "0x" + "ab" * 20, buy, base, quote, 0, *reserves


def checksummed(trades: list[Any]) -> list[Any]:
    """Trades as web3 takes them."""
    return [(*map(Web3.to_checksum_address, (token, who)), *rest) for token, who, *rest in trades]


@pytest.mark.timeout(60)
def test_strangers_change_nothing(system: System) -> None:
    """Our events by a contract that no factory announced, even about a real market, count for nothing."""
    world = World(system)
    launchpad = world.launchpad
    curve = launchpad.create("Real", "REAL")

    def strangers() -> None:
        token = Web3.to_checksum_address(curve.token)
        emit = world.rogue.functions
        world.queue(emit.emitTrade(*checksummed([trade(token, 10**18, 10**18)])[0]))
        world.queue(emit.emitCurveCreated(token, world.rogue.address, world.someone, "Fake", "FAKE"))
        world.queue(emit.emitCurveCreated(world.token(), world.rogue.address, world.someone, "F", "F"))
        world.queue(emit.emitTrade(*checksummed([trade(token, 10**18, 10**18)])[0]))
        world.queue(emit.emitGraduated(token, world.someone, 1, 1))
        world.queue(emit.emitRaw([oracle.TRADE_TOPIC], b"\x01"))
        world.queue(emit.emitRaw([], b"anonymous"))
        world.block()

    launchpad.buy(curve, ETHER)
    strangers()
    listener = system.start_listener(launchpad.factory.address, **QUICK)
    system.equals_oracle(launchpad.factory.address)
    strangers()
    launchpad.buy(curve, ETHER)
    truth = system.equals_oracle(launchpad.factory.address)
    assert [len(trades) for trades in truth.trades.values()] == [2]
    assert truth.records[curve.token]["status"] == "trading"
    rejected = system.wait_log("Logs rejected")
    assert rejected["stranger"] >= 5
    assert listener.process.poll() is None


@pytest.mark.timeout(60)
def test_malformed_logs_of_known_curves_change_nothing(system: System) -> None:
    """Trades and graduations with wrong topics or data, by a curve that counts, are passed over."""
    world = World(system)
    factories = (world.launchpad.factory.address, world.odd.address)

    def mess() -> None:
        rogue, token = world.deploy("RogueEmitter", "RogueEmitter"), world.token()
        world.announce(token, rogue.address)
        emit = rogue.functions
        world.queue(emit.emitTrade(*checksummed([trade(token, 10**6, 10**18)])[0]))
        clean = bytes(12) + Web3.to_bytes(hexstr=token)  # type: ignore[arg-type]
        dirty = b"\x01" + clean[1:]
        one = (1).to_bytes(32, "big")
        trade_topic, graduated_topic = (
            bytes.fromhex(topic[2:]) for topic in (oracle.TRADE_TOPIC, oracle.GRADUATED_TOPIC)
        )
        for topic in (trade_topic, graduated_topic):
            for count in TOPIC_COUNTS:
                for length in DATA_LENGTHS:
                    data = (one * 8)[:length]
                    world.queue(emit.emitRaw([topic, clean, clean, clean][:count], data))
        world.block()
        for topics in ([clean, dirty], [dirty, clean]):
            world.queue(emit.emitRaw([trade_topic, *topics], one * 6))
            world.queue(emit.emitRaw([graduated_topic, *topics], one * 2))
        world.queue(emit.emitRaw([trade_topic, clean, clean], (2).to_bytes(32, "big") + one * 5))
        world.queue(emit.emitRaw([trade_topic, clean, clean], b"\xff" * 32 + one * 5))
        other = Web3.to_checksum_address("0x" + "77" * 20)
        world.queue(emit.emitTrade(*checksummed([trade(other, 1, 1)])[0]))
        world.queue(emit.emitGraduated(other, other, 1, 1))
        world.queue(emit.emitTrade(*checksummed([trade(token, 10**6, 2 * 10**18, buy=False)])[0]))
        world.block()

    mess()
    system.start_listener(",".join(factories), **QUICK)
    system.equals_oracle(*factories)
    mess()
    truth = system.equals_oracle(*factories)
    assert [len(trades) for trades in truth.trades.values()] == [2, 2]
    assert {record["status"] for record in truth.records.values()} == {"trading"}
    assert truth.last_block
    assert system.wait_log("Logs rejected", block=truth.last_block.number)["malformed"] == 8


@pytest.mark.timeout(60)
def test_malformed_announcements_make_no_market(system: System) -> None:
    """A creation that a configured factory emits with wrong topics or unreadable texts makes no market."""
    world = World(system)
    factories = (world.launchpad.factory.address, world.rogue.address)

    def mess() -> None:
        emit = world.rogue.functions
        topic = bytes.fromhex(oracle.CURVE_CREATED_TOPIC[2:])

        def word(number: int) -> bytes:
            return number.to_bytes(32, "big")

        texts = word(64) + word(128) + word(1) + b"N".ljust(32, b"\0") + word(1) + b"S".ljust(32, b"\0")
        broken = (b"", b"\x01", texts[:31], texts[:64], word(BIGGEST) * 2, word(64) * 2 + word(BIGGEST))
        for data in broken:
            token, curve = (bytes(12) + Web3.to_bytes(hexstr=world.token()) for _ in range(2))  # type: ignore[arg-type]
            world.queue(emit.emitRaw([topic, token, curve, curve], data))
        token = bytes(12) + Web3.to_bytes(hexstr=world.token())  # type: ignore[arg-type]
        dirty = b"\x01" + token[1:]
        for topics in (
            [token],
            [token, token],
            [dirty, token, token],
            [token, dirty, token],
            [token, token, dirty],
        ):
            world.queue(emit.emitRaw([topic, *topics], texts))
        world.queue(emit.emitRaw([topic, token, token, token], texts))
        world.block()

    mess()
    system.start_listener(",".join(factories), **QUICK)
    system.equals_oracle(*factories)
    mess()
    truth = system.equals_oracle(*factories)
    assert len(truth.markets) == 2


@pytest.mark.timeout(60)
@pytest.mark.parametrize("price_mode", ["execution", "spot"])
def test_amounts_of_any_size_are_exact(system: System, price_mode: str) -> None:
    """Zero amounts are passed over; others up to 2^256 - 1, many in one transaction, are exact."""
    world = World(system)
    factories = (world.launchpad.factory.address, world.odd.address)
    sizes = (0, 1, 3, 10**18, 2**128 + 1, BIGGEST - 1, BIGGEST)

    def extremes() -> None:
        for kind in ("Decimals6Token", "SymbolRevertsToken"):
            token, curve = world.token(kind), world.curve()
            world.announce(token, curve.address)
            trades = [
                trade(token, base, quote, buy=(base + quote) % 2 == 0, reserves=reserves)
                for base in sizes
                for quote in sizes
                for reserves in ((0, quote), (quote, 0), (base, quote), (BIGGEST, 1), (1, BIGGEST))
            ]
            world.queue(curve.functions.emitTrades(checksummed(trades)), gas=8_000_000)
            world.block()

    extremes()
    system.start_listener(",".join(factories), PRICE_MODE=price_mode, **QUICK)
    system.equals_oracle(*factories, price_mode=price_mode)
    extremes()
    truth = system.equals_oracle(*factories, price_mode=price_mode)
    assert {len(trades) for trades in truth.trades.values()} == {180}
    assert system.wait_log("Logs rejected")["zero_amount"] == 65


TOKENS: Final = (
    ("SymbolRevertsToken",),
    ("SymbolBytes32Token",),
    ("SymbolInvalidUtf8Token",),
    ("SymbolHugeToken", 1 << 20),
    ("DecimalsRevertsToken",),
    ("Decimals6Token",),
    ("DecimalsWideToken",),
    ("SilentToken",),
)


def odd_tokens(world: World, kinds: tuple[tuple[Any, ...], ...]) -> None:
    """Announce and trade a token of each kind, and one that is no contract."""
    for token in [*(world.token(*kind) for kind in kinds), NOBODY, world.someone]:
        curve = world.curve()
        world.announce(token, curve.address)
        trades = [trade(token, 10**18, 3), trade(token, 7, 10**18, buy=False)]
        world.queue(curve.functions.emitTrades(checksummed(trades)))
    world.block()


@pytest.mark.timeout(60)
def test_odd_tokens_are_named_or_refused(system: System) -> None:
    """Tokens without readable decimals make no market; other names are cut, cleaned or replaced."""
    world = World(system)
    factories = (world.launchpad.factory.address, world.odd.address)
    system.start_backend()
    odd_tokens(world, TOKENS)
    system.start_listener(",".join(factories), **QUICK)
    system.equals_oracle(*factories)
    odd_tokens(world, TOKENS)
    truth = system.equals_oracle(*factories)
    symbols = sorted(str(record["symbol"]) for record in truth.records.values())
    assert {"B32", "PLAIN", "🚀" * 64} <= set(symbols)
    assert sum(symbol.startswith("0x") for symbol in symbols) == 4
    assert len(truth.markets) == 2 * 5
    assert system.wait_log("Logs rejected")["token_unreadable"] >= 3
    system.backend_equals_redis()


@pytest.mark.timeout(60)
def test_255_decimals_reach_the_backend(system: System) -> None:
    """A token with 255 decimals makes numbers of hundreds of digits, exact in Redis and in the backend."""
    world = World(system)
    factories = (world.launchpad.factory.address, world.odd.address)
    system.start_backend()
    odd_tokens(world, (("Decimals255Token",),))
    system.start_listener(",".join(factories), **QUICK)
    system.equals_oracle(*factories)
    odd_tokens(world, (("Decimals255Token",),))
    truth = system.equals_oracle(*factories)
    assert {record["baseDecimals"] for record in truth.records.values()} == {255}
    system.backend_equals_redis(timeout_s=6)


@pytest.mark.timeout(60)
def test_first_claim_wins(system: System) -> None:
    """A second announcement of a token or of a curve changes nothing, in a later block or in the same one."""
    world = World(system)
    factories = (world.launchpad.factory.address, world.odd.address, world.rogue.address)

    def claims() -> None:
        real = world.launchpad.create("Real", "REAL")
        tokens = [world.token() for _ in range(6)]
        curves = [world.curve() for _ in range(5)]
        pairs = (
            (real.token, curves[0]),  # a token that is taken
            (tokens[0], None),  # a curve that is taken
            (tokens[1], curves[1]),
            (tokens[1], curves[2]),  # the token again, in the same block
            (tokens[2], curves[1]),  # the curve again, in the same block
            (tokens[1], curves[1]),  # both again
        )
        unreadable = world.token("DecimalsRevertsToken")
        for token, curve in (*pairs, (unreadable, curves[3]), (tokens[3], curves[3])):
            target = curve.address if curve else Web3.to_checksum_address(real.address)
            world.announce(Web3.to_checksum_address(token), target)
        for curve in curves:
            for token in (real.token, *tokens):
                world.queue(curve.functions.emitTrade(*checksummed([trade(token, 5, 7)])))
        world.block()
        world.announce(tokens[4], curves[1].address)
        world.announce(tokens[1], curves[4].address, world.rogue)
        world.announce(tokens[5], curves[4].address, world.rogue)
        world.queue(curves[4].functions.emitTrade(*checksummed([trade(tokens[5], 5, 7)])))
        world.queue(curves[4].functions.emitTrade(*checksummed([trade(tokens[1], 5, 7)])))
        world.block()
        world.launchpad.buy(real, ETHER)

    claims()
    system.start_listener(",".join(factories), **QUICK)
    system.equals_oracle(*factories)
    claims()
    truth = system.equals_oracle(*factories)
    assert len(truth.markets) == 2 * 4
    assert system.wait_log("Logs rejected")["market_taken"] >= 4


@pytest.mark.timeout(60)
def test_trades_beside_their_creation(system: System) -> None:
    """A trade in the creating transaction counts in either order of logs; one in an earlier one does not."""
    world = World(system)
    launchpad = world.launchpad
    parts = launchpad.factory.functions.parameters().call()
    late = launchpad.deploy("LateAnnouncingFactory", parts, launchpad.accounts[0], NOBODY)
    first = launchpad.deploy("CreateAndBuy", launchpad.factory.address)
    factories = (launchpad.factory.address, late.address, world.odd.address)

    def life() -> None:
        for launcher in (first, late):
            call = launcher.functions.createAndBuy("Both", "BOTH", 0)
            curve = launchpad.created(launchpad.send(call, 1, value=ETHER))
            launchpad.buy(curve, ETHER, 2)
        token, curve = world.token(), world.curve()
        one = checksummed([trade(token, 5, 7)])
        world.queue(curve.functions.emitTrade(*one))  # too early: neither announced nor in that transaction
        world.queue(
            world.odd.functions.tradeThenAnnounce(
                curve.address, one * 2, token, world.someone, "Late", "LATE"
            )
        )
        world.queue(curve.functions.emitTrade(*one))
        world.block()

    life()
    system.start_listener(",".join(factories), **QUICK)
    system.equals_oracle(*factories)
    life()
    truth = system.equals_oracle(*factories)
    assert sorted(len(trades) for trades in truth.trades.values()) == [2, 2, 2, 2, 3, 3]

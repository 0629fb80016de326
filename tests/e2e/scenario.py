"""A seeded life of a launchpad: creations, buys, sells, strangers and odd logs over days of chain time."""

import random
from typing import Any

import requests
from web3 import Web3

from listener.demo.launchpad import ETHER, Curve, Launchpad, artifact

HOUR_S = 3600
TRADE = Web3.keccak(text="Trade(address,address,bool,uint256,uint256,uint256,uint256,uint256)")


class Scenario:
    """Drives a chain whose automatic mining is off; each `block` mines exactly one.

    Args:
        launchpad: deployed already.
        seed: the same seed sends the same transactions.
    """

    def __init__(self, launchpad: Launchpad, seed: int) -> None:
        self.launchpad = launchpad
        self.random = random.Random(seed)
        self.curves: list[Curve] = []
        self.trades_sent = 0
        self._created = 0
        self._session = requests.Session()
        self._url = str(launchpad.web3.provider.endpoint_uri)  # type: ignore[attr-defined]
        self._curve = launchpad.web3.eth.contract(abi=artifact("BondingCurve")["abi"])
        self._token = launchpad.web3.eth.contract(abi=artifact("LaunchToken")["abi"])
        self._rogue = launchpad.deploy("test/RogueEmitter.sol/RogueEmitter")
        self._helper = launchpad.deploy("CreateAndBuy", launchpad.factory.address)
        self._pending: list[dict[str, Any]] = []
        self._bought: dict[tuple[str, int], int] = {}

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def create(self) -> None:
        """Create a token; half of the time its first buy is in the same transaction."""
        number, self._created = self._created, self._created + 1
        names = [f"Token {number} {'🦦' * (number % 3)}", f"T{number}"]
        if self.random.random() < 0.5:
            receipt = self.launchpad.send(
                self.launchpad.factory.functions.createToken(*names), self._trader()
            )
        else:
            call = self._helper.functions.createAndBuy(*names, 0)
            receipt = self.launchpad.send(call, self._trader(), value=ETHER // 10)
            self.trades_sent += 1
        curve = self.launchpad.created(receipt)
        approve = self._token.encode_abi("approve", [Web3.to_checksum_address(curve.address), 2**256 - 1])
        for trader in range(len(self.launchpad.accounts)):
            self._send(trader, curve.token, approve)
        self.curves.append(curve)

    def trades(self, count: int) -> None:
        """Queue trades for the next block, most of them in a few markets."""
        for _ in range(count):
            curve = self.curves[min(int(self.random.expovariate(0.35)), len(self.curves) - 1)]
            trader = self._trader()
            key = (curve.token, trader)
            if self._bought.get(key, 0) > 0 and self.random.random() < 0.45:
                amount = self.random.randrange(1, 50_000) * ETHER
                self._send(
                    trader, curve.address, self._curve.encode_abi("sell", [amount, 0, self._account(trader)])
                )
                self._bought[key] -= 1
            else:
                value = (
                    int(ETHER * self.random.choice((0.0001, 0.01, 0.1, 0.5)) * self.random.random()) + 1000
                )
                self._send(
                    trader, curve.address, self._curve.encode_abi("buy", [0, self._account(trader)]), value
                )
                self._bought[key] = self._bought.get(key, 0) + 1
            self.trades_sent += 1

    def strangers(self) -> None:
        """Queue a fake of each of our events by an emitter that nobody configured."""
        curve = self.random.choice(self.curves)
        token, someone = Web3.to_checksum_address(curve.token), self._account(0)
        self._send(
            0, self._rogue.address, self._rogue.encode_abi("emitTrade", [token, someone, True, 5, 7, 1, 9, 9])
        )
        fake = [token, self._rogue.address, someone, "Fake", "FAKE"]
        self._send(0, self._rogue.address, self._rogue.encode_abi("emitCurveCreated", fake))
        self._send(0, self._rogue.address, self._rogue.encode_abi("emitGraduated", [token, someone, 1, 1]))

    def pass_time(self, seconds: int) -> None:
        """Let chain time pass before the next block."""
        self.launchpad.rpc("evm_increaseTime", seconds)

    def block(self) -> int:
        """Mine what is queued in one block; its number."""
        if self._pending:
            nonces = {
                account: self.launchpad.web3.eth.get_transaction_count(Web3.to_checksum_address(account))
                for account in {request["params"][0]["from"] for request in self._pending}
            }
            for request in self._pending:  # the node answers a batch in any order
                sender = request["params"][0]["from"]
                request["params"][0]["nonce"] = hex(nonces[sender])
                nonces[sender] += 1
            answers = self._session.post(self._url, json=self._pending, timeout=60).json()
            refused = [answer["error"] for answer in answers if "error" in answer]
            assert not refused, refused[:3]
            self._pending.clear()
        self.launchpad.rpc("evm_mine")
        return self.tip()

    def tip(self) -> int:
        """The newest block."""
        return self.launchpad.web3.eth.block_number

    def trade_logs(self) -> int:
        """How many `Trade` logs the chain holds; some transactions are refused, a few logs are strangers'."""
        wanted = {"fromBlock": 0, "topics": [Web3.to_hex(TRADE)]}
        return len(self.launchpad.web3.eth.get_logs(wanted))  # type: ignore[arg-type]

    def life(self, blocks: int, most_trades: int) -> None:
        """So many blocks of trades, with time passing, strangers and new tokens."""
        for _ in range(blocks):
            if self.random.random() < 0.08:
                self.set_mining(automatic=True)
                self.create()
                self.set_mining(automatic=False)
            if self.random.random() < 0.1:
                self.strangers()
            self.trades(self.random.randrange(most_trades + 1))
            self.pass_time(self.random.choice((1, 2, 12, 45, 61, 600, HOUR_S, 3 * HOUR_S)))
            self.block()

    def forget_lost(self) -> None:
        """After a reorg: forget what was queued or bought, and tokens that the chain no longer has."""
        self._pending.clear()
        self._bought.clear()
        code = self.launchpad.web3.eth.get_code
        self.curves = [curve for curve in self.curves if code(Web3.to_checksum_address(curve.address))]

    def set_mining(self, *, automatic: bool) -> None:
        """Whether each transaction gets its own block."""
        self.launchpad.rpc("evm_setAutomine", automatic)  # type: ignore[arg-type]

    def _trader(self) -> int:
        return self.random.randrange(len(self.launchpad.accounts))

    def _account(self, trader: int) -> str:
        return Web3.to_checksum_address(self.launchpad.accounts[trader])

    def _send(self, trader: int, to: str, data: str, value: int = 0) -> None:
        transaction = {
            "from": self.launchpad.accounts[trader],
            "to": to,
            "data": data,
            "value": hex(value),
            "gas": hex(300_000),
        }
        self._pending.append(
            {
                "jsonrpc": "2.0",
                "id": len(self._pending),
                "method": "eth_sendTransaction",
                "params": [transaction],
            }
        )

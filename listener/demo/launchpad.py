"""Our contracts on a dev chain, driven by its unlocked accounts. Synchronous, on web3."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from web3 import HTTPProvider, Web3
from web3.contract import Contract
from web3.types import TxParams, TxReceipt, Wei

from listener.demo.processes import REPOSITORY

ARTIFACTS: Final = REPOSITORY / "artifacts" / "contracts"
ETHER: Final = 10**18
GAS: Final = 8_000_000


@dataclass(frozen=True, slots=True)
class Parameters:
    """Curve parameters in base units, as the factory takes them."""

    virtual_base: int = 1_073_000_000 * ETHER
    virtual_quote: int = 30 * ETHER
    supply: int = 1_000_000_000 * ETHER
    graduation_threshold: int = 85 * ETHER
    fee_bps: int = 100


@dataclass(frozen=True, slots=True)
class Curve:
    """A created token and its curve."""

    token: str
    address: str


@cache
def artifact(path: str) -> dict[str, Any]:
    """A compiled contract, such as `BondingCurve` or `test/RogueEmitter.sol/RogueEmitter`."""
    file = path if "/" in path else f"{path}.sol/{path}"
    found: dict[str, Any] = json.loads((ARTIFACTS / f"{file}.json").read_text())
    return found


class Launchpad:
    """A factory on a dev chain and everything one can do with it."""

    def __init__(self, url: str, parameters: Parameters | None = None, factory: str | None = None) -> None:
        self.web3 = Web3(HTTPProvider(url, request_kwargs={"timeout": 60}))
        self.accounts: Sequence[str] = [str(account) for account in self.web3.eth.accounts]
        if factory:
            self.factory = self.at("BondingCurveFactory", factory)
        else:
            parts = parameters or Parameters()
            values = (
                parts.virtual_base,
                parts.virtual_quote,
                parts.supply,
                parts.graduation_threshold,
                parts.fee_bps,
            )
            zero = "0x" + "0" * 40
            self.factory = self.deploy("BondingCurveFactory", values, self.accounts[0], zero)
        self._approved: set[tuple[str, str]] = set()

    def deploy(self, name: str, *arguments: object) -> Contract:
        """Deploy one of our contracts from the first account."""
        compiled = artifact(name)
        contract = self.web3.eth.contract(abi=compiled["abi"], bytecode=compiled["bytecode"])
        receipt = self._wait(contract.constructor(*arguments).transact(self._from(self.accounts[0])))
        address = receipt["contractAddress"]
        if address is None:
            raise RuntimeError(f"{name} was not deployed")
        return self.at(name, address)

    def at(self, name: str, address: str) -> Contract:
        """One of our contracts at an address."""
        return self.web3.eth.contract(Web3.to_checksum_address(address), abi=artifact(name)["abi"])

    def create(self, name: str, symbol: str, creator: int = 0) -> Curve:
        """Create a token and wait until it is mined."""
        transaction = self.factory.functions.createToken(name, symbol).transact(
            self._from(self.accounts[creator])
        )
        return self.created(self._wait(transaction))

    def created(self, receipt: TxReceipt) -> Curve:
        """The curve whose creation a receipt holds."""
        topic = Web3.keccak(text="CurveCreated(address,address,address,string,string)")
        log = next(log for log in receipt["logs"] if log["topics"][0] == topic)
        token, curve = ("0x" + bytes(log["topics"][place])[12:].hex() for place in (1, 2))
        return Curve(token, curve)

    def buy(self, curve: Curve, value: int, trader: int = 0) -> bytes:
        """Send a buy for `value` wei; the transaction's hash, not waited for."""
        account = self.accounts[trader]
        call = self.at("BondingCurve", curve.address).functions.buy(0, account)
        return bytes(call.transact(self._from(account, value)))

    def sell(self, curve: Curve, amount: int, trader: int = 0) -> bytes:
        """Send a sale of `amount` base units; the transaction's hash, not waited for."""
        account = self.accounts[trader]
        if (curve.token, account) not in self._approved:
            token = self.at("LaunchToken", curve.token)
            token.functions.approve(Web3.to_checksum_address(curve.address), 2**256 - 1).transact(
                self._from(account)
            )
            self._approved.add((curve.token, account))
        call = self.at("BondingCurve", curve.address).functions.sell(amount, 0, account)
        return bytes(call.transact(self._from(account)))

    def balance(self, curve: Curve, trader: int = 0) -> int:
        """Base units of the token that an account holds."""
        account = Web3.to_checksum_address(self.accounts[trader])
        held: int = self.at("LaunchToken", curve.token).functions.balanceOf(account).call()
        return held

    def rpc(self, method: str, *params: object) -> Any:  # noqa: ANN401 - any JSON value
        """A raw call, for the dev chain's own methods.

        Raises:
            RuntimeError: the node answered with an error.
        """
        answer = self.web3.provider.make_request(method, list(params))  # type: ignore[arg-type]
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def send(self, call: Any, trader: int = 0, value: int = 0) -> TxReceipt:  # noqa: ANN401 - a contract call
        """Send a contract call and wait until it is mined."""
        return self._wait(call.transact(self._from(self.accounts[trader], value)))

    def _wait(self, transaction: Any) -> TxReceipt:  # noqa: ANN401 - a hash
        receipt = self.web3.eth.wait_for_transaction_receipt(transaction, timeout=60, poll_latency=0.05)
        if receipt["status"] != 1:
            raise RuntimeError(f"transaction {receipt['transactionHash'].to_0x_hex()} was refused")
        return receipt

    @staticmethod
    def _from(account: str, value: int = 0) -> TxParams:
        return {"from": Web3.to_checksum_address(account), "value": Wei(value), "gas": GAS}

"""A seeded workload: markets of the bonding-curve venue and their trades, as a node would serve them.

    .venv/bin/python -m bench.workload --trades 1000000

Popularity follows Zipf's law: the k-th market has a share of trades in proportion to 1/k, or with `--skew` to
1/k to that power. A market is announced by the factory in the transaction of its first trade. Trades move
along a constant-product curve, fewer than half of them are sales. Each trade has a transaction of its own.
With `--idle`, the first trades are in so many further markets, one in each, which are not traded again.

Blocks are numbered from 1; block 0 and blocks after the last trade are empty. What a block's logs say does
not depend on when the block was made: times belong to headers, and those are built by who serves them.

A workload is generated once and kept on disk as two files of pre-encoded JSON and an index: the logs of any
range of blocks are one slice of a file. With `--template` only so many trades are generated; after them the
same blocks come again and again under other numbers and hashes, made from the file when they are asked for,
without the announcements. A market's reserves then jump back, and transaction hashes come more than once.
"""

import argparse
import json
import mmap
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from listener.infrastructure.blockchain.venues.bonding_curve import CURVE_CREATED, TRADE

ETHER: Final = 10**18
DECIMALS: Final = 18
TRADERS: Final = 5_000
VIRTUAL_QUOTE: Final = 30 * ETHER
SUPPLY: Final = 10**9 * ETHER
LEAST_QUOTE: Final = 10**15
MEAN_QUOTE: Final = 2 * 10**17
FEE_PARTS: Final = 100
FORMAT: Final = 1
"""Raised when the same shape would give other files."""
CACHE: Final = Path(tempfile.gettempdir()) / "listener-bench"

ADDRESS_LENGTH: Final = 42
_LOG_START: Final = b'{"address":"'


class Shape(NamedTuple):
    """What a workload is made from.

    Attributes:
        trades: in total.
        markets: so many may be traded; all of them only if there are trades enough.
        trades_per_block: in every block but the last.
        seed: of everything random.
        skew: exponent of the popularity; 0: all markets are equal.
        idle: so many markets more, with one trade each before all other trades.
        template: so many trades are generated and then repeated, a multiple of those in a block; 0: all.
    """

    trades: int = 100_000
    markets: int = 1_000
    trades_per_block: int = 200
    seed: int = 1
    skew: float = 1.0
    idle: int = 0
    template: int = 0

    @property
    def blocks(self) -> int:
        """Blocks with trades, which are also the number of the last of them."""
        return -(-self.trades // self.trades_per_block)

    @property
    def generated(self) -> "Shape":
        """What is generated and kept."""
        return self._replace(trades=self.template or self.trades, template=0)

    def name(self) -> str:
        """Of its directory."""
        shape = self.generated
        name = f"v{FORMAT}-{shape.trades}-{shape.markets}-{shape.trades_per_block}-{shape.seed}"
        return f"{name}-{shape.skew:g}-{shape.idle}" if shape.skew != 1 or shape.idle else name


@lru_cache(maxsize=100_000)
def address(kind: str, number: int = 0) -> str:
    """An address that depends on nothing else."""
    return "0x" + blake2b(f"{kind} {number}".encode(), digest_size=20).hexdigest()


FACTORY: Final = address("factory")


def block_hash(number: int, branch: int = 0) -> str:
    """Hash of a block, on a branch of the chain."""
    name = f"block {number} of branch {branch}" if branch else f"block {number}"
    return "0x" + blake2b(name.encode(), digest_size=32).hexdigest()


def market_name(market: int) -> str:
    """What the token answers to `name()`."""
    return f"Market {market}"


def market_symbol(market: int) -> str:
    """What the token answers to `symbol()`."""
    return f"M{market}"


def string_words(text: str) -> str:
    """Length and content of a short string in the ABI, in hex."""
    content = text.encode()
    return f"{len(content):064x}{content.hex():0<64}"


@dataclass(slots=True)
class Curve:
    """A constant-product curve with virtual reserves."""

    base: int = SUPPLY
    quote: int = VIRTUAL_QUOTE

    def trade(self, draw: float, quote: int) -> tuple[bool, int, int]:
        """A sale if `draw` (0 to 1) says so and enough tokens were bought before, or else a purchase.

        Returns:
            Whether it is a purchase; base; quote.
        """
        if draw > 0.5 and self.quote - quote > VIRTUAL_QUOTE:
            base = self.base * quote // (self.quote - quote)
            self.base += base
            self.quote -= quote
            return False, base, quote
        base = self.base * quote // (self.quote + quote)
        self.base -= base
        self.quote += quote
        return True, base, quote


class Generator:
    """Makes the blocks of a workload one after the other.

    Attributes:
        announced: by market, the block that announces it, as far as blocks were made.
    """

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._random = random.Random(shape.seed)  # noqa: S311 - a workload, no secret
        self._weights = list(accumulate(rank**-shape.skew for rank in range(1, shape.markets + 1)))
        self._curves: dict[int, Curve] = {}
        self.announced: dict[int, int] = {}
        self._padded = [f"0x{0:024x}{address('trader', number)[2:]}" for number in range(TRADERS)]

    def blocks(self) -> Iterator[tuple[bytes, bytes, int]]:
        """Logs, each after a comma; transaction hashes as the inside of a JSON list; number of logs."""
        shape, left = self._shape, self._shape.trades
        idle = iter(range(shape.markets, shape.markets + shape.idle))
        for number in range(1, shape.blocks + 1):
            trades = min(left, shape.trades_per_block)
            left -= trades
            chosen = list(islice(idle, trades))
            some = trades - len(chosen)
            chosen += self._random.choices(range(shape.markets), cum_weights=self._weights, k=some)
            yield self._block(number, chosen)

    def _block(self, number: int, chosen: list[int]) -> tuple[bytes, bytes, int]:
        logs: list[str] = []
        hashes: list[str] = []
        own_hash = block_hash(number)
        for index, market in enumerate(chosen):
            transaction = blake2b(f"{number} {index}".encode(), digest_size=32).hexdigest()
            hashes.append(f'"0x{transaction}"')
            place = (
                f'","blockNumber":"{number:#x}","transactionHash":"0x{transaction}",'
                f'"transactionIndex":"{index:#x}","blockHash":"{own_hash}","logIndex":"'
            )
            if market not in self._curves:
                self._curves[market] = Curve()
                self.announced[market] = number
                logs.append(f'{self._announcement(market)}{place}{len(logs):#x}","removed":false}}')
            logs.append(f'{self._trade(market)}{place}{len(logs):#x}","removed":false}}')
        return "".join(logs).encode(), ",".join(hashes).encode(), len(logs)

    def _announcement(self, market: int) -> str:
        token, curve, creator = (address(kind, market)[2:] for kind in ("token", "curve", "creator"))
        name, symbol = string_words(market_name(market)), string_words(market_symbol(market))
        return (
            f',{{"address":"{FACTORY}","topics":["{CURVE_CREATED}","0x{token:0>64}","0x{curve:0>64}",'
            f'"0x{creator:0>64}"],"data":"0x{64:064x}{128:064x}{name}{symbol}'
        )

    def _trade(self, market: int) -> str:
        random, curve = self._random, self._curves[market]
        wanted = LEAST_QUOTE + int(random.expovariate(1 / MEAN_QUOTE))
        is_buy, base, quote = curve.trade(random.random(), wanted)
        trader = self._padded[int(random.random() * TRADERS)]
        return (
            f',{{"address":"{address("curve", market)}","topics":["{TRADE}",'
            f'"0x{0:024x}{address("token", market)[2:]}","{trader}"],"data":"0x{is_buy:064x}{base:064x}'
            f"{quote:064x}{quote // FEE_PARTS:064x}{curve.base:064x}{curve.quote:064x}"
        )


class Workload:
    """A generated workload, read from disk.

    Args:
        directory: where its files are.
        shape: what it was made from.
    """

    def __init__(self, directory: Path, shape: Shape) -> None:
        self.shape = shape
        index = json.loads((directory / "index.json").read_text())
        self._round: int = shape.generated.blocks
        self._log_ends: list[int] = index["log_ends"]
        self._hash_ends: list[int] = index["hash_ends"]
        self._counts: list[int] = list(accumulate(index["counts"], initial=0))
        self.announced: dict[int, int] = {int(market): block for market, block in index["announced"].items()}
        self._announcing = Counter(self.announced.values())
        self._logs = _mapped(directory / "logs")
        self._hashes = _mapped(directory / "hashes")
        self.markets = {address("token", market): market for market in range(shape.markets + shape.idle)}

    @classmethod
    def open(cls, shape: Shape, cache: Path = CACHE) -> Self:
        """Read a workload, after generating it if it is not there yet."""
        directory = cache / shape.name()
        if not directory.exists():
            cache.mkdir(parents=True, exist_ok=True)
            beside = Path(tempfile.mkdtemp(dir=cache))
            generate(shape.generated, beside)
            try:
                beside.rename(directory)
            except OSError:  # somebody else was faster
                shutil.rmtree(beside)
        return cls(directory, shape)

    def logs(self, first: int, last: int) -> bytes | memoryview:
        """Logs of blocks, as the inside of a JSON list."""
        first, last = max(first, 1), min(last, self.shape.blocks)
        if first > last:
            return b""
        if last <= self._round:
            return self._generated(first, last)
        middle = max(first, self._round + 1)
        parts = [self._generated(first, middle - 1)] if first < middle else []
        return b",".join([*parts, *(self._repeated(number) for number in range(middle, last + 1))])

    def _generated(self, first: int, last: int) -> memoryview:
        start, end = self._log_ends[first - 1], self._log_ends[last]
        return self._logs[min(start + 1, end) : end]

    def _repeated(self, number: int) -> bytes:
        """Logs of a block of a later round."""
        source = self._source(number)
        logs = bytes(self._generated(source, source))
        if source in self._announcing:
            all_of_them = logs.removeprefix(_LOG_START).split(b"," + _LOG_START)
            logs = _LOG_START + (b"," + _LOG_START).join(
                log for log in all_of_them if not log.startswith(FACTORY.encode())
            )
        return logs.replace(block_hash(source).encode(), block_hash(number).encode()).replace(
            b'"blockNumber":"%#x"' % source, b'"blockNumber":"%#x"' % number
        )

    def _source(self, number: int) -> int:
        """The generated block that a block repeats."""
        return (number - 1) % self._round + 1

    def count(self, first: int, last: int) -> int:
        """How many logs blocks have."""
        return self._count(min(last, self.shape.blocks)) - self._count(min(first - 1, self.shape.blocks))

    def _count(self, last: int) -> int:
        rounds, rest = divmod(max(last, 0), self._round)
        whole = rounds * self._counts[self._round] + self._counts[rest]
        later = max(rounds - 1, 0) * len(self.announced)
        later += sum(1 for block in self.announced.values() if block <= rest) if rounds else 0
        return whole - later

    def distinct_markets(self, first: int, last: int) -> float:
        """How many markets a block trades, on the average of some generated blocks."""
        found = 0
        for number in range(first, last + 1):
            logs = bytes(self._generated(number, number)).split(_LOG_START)[1:]
            found += len({log[:ADDRESS_LENGTH] for log in logs} - {FACTORY.encode()})
        return found / (last - first + 1)

    def hashes(self, number: int) -> memoryview:
        """Transaction hashes of a block, as the inside of a JSON list."""
        if not 1 <= number <= self.shape.blocks:
            return self._hashes[:0]
        source = self._source(number)
        return self._hashes[self._hash_ends[source - 1] : self._hash_ends[source]]

    def of_markets(self, markets: set[int]) -> list[dict[str, Any]]:
        """Every log that announces or trades one of these markets."""
        found = self._generated_of(markets)
        trades = [log for log in found if log["address"] != FACTORY]
        for start in range(self._round, self.shape.blocks, self._round):
            numbered = [(start + int(log["blockNumber"], 16), log) for log in trades]
            hashes = {number: block_hash(number) for number, _ in numbered}
            found += [
                {**log, "blockNumber": hex(number), "blockHash": hashes[number]}
                for number, log in numbered
                if number <= self.shape.blocks
            ]
        return found

    def _generated_of(self, markets: set[int]) -> list[dict[str, Any]]:
        emitters = {address("curve", market).encode() for market in markets}
        tokens = {address("token", market)[2:].encode() for market in markets}
        found = []
        for number in range(1, self._round + 1):
            for log in bytes(self._generated(number, number)).split(_LOG_START)[1:]:
                emitter = log[:ADDRESS_LENGTH]
                announces = emitter == FACTORY.encode() and any(token in log for token in tokens)
                if announces or emitter in emitters:
                    found.append(json.loads(_LOG_START + log.rstrip(b",")))
        return found


def generate(shape: Shape, directory: Path) -> None:
    """Write the files of a workload into a directory."""
    log_ends, hash_ends, counts = [0], [0], []
    generator = Generator(shape)
    with (directory / "logs").open("wb") as logs, (directory / "hashes").open("wb") as hashes:
        for some_logs, some_hashes, count in generator.blocks():
            logs.write(some_logs)
            hashes.write(some_hashes)
            log_ends.append(log_ends[-1] + len(some_logs))
            hash_ends.append(hash_ends[-1] + len(some_hashes))
            counts.append(count)
    index = {"log_ends": log_ends, "hash_ends": hash_ends, "counts": counts, "announced": generator.announced}
    (directory / "index.json").write_text(json.dumps(index))


def _mapped(path: Path) -> memoryview:
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that name a workload."""
    default = Shape()
    parser.add_argument("--trades", type=int, default=default.trades)
    parser.add_argument("--markets", type=int, default=default.markets)
    parser.add_argument("--trades-per-block", type=int, default=default.trades_per_block)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--skew", type=float, default=default.skew, help="exponent of the popularity")
    parser.add_argument("--idle", type=int, default=default.idle, help="markets with a single trade")
    parser.add_argument(
        "--template", type=int, default=default.template, help="generate so many, repeat them"
    )
    parser.add_argument("--cache", type=Path, default=CACHE, help="where generated workloads are kept")


def shape_of(arguments: argparse.Namespace) -> Shape:
    """The workload that options name."""
    return Shape(*(getattr(arguments, name) for name in Shape._fields))


def main() -> None:
    """Generate a workload and say what it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    started = time.perf_counter()
    workload = Workload.open(shape_of(arguments), arguments.cache)
    seconds = time.perf_counter() - started
    blocks = workload.shape.blocks
    size = len(workload.logs(1, blocks))
    print(
        f"{workload.count(1, blocks)} logs in {blocks} blocks, {len(workload.announced)} markets, "
        f"{size / 1e6:.0f} MB, {seconds:.1f} s; {os.fspath(arguments.cache / workload.shape.name())}"
    )


if __name__ == "__main__":
    main()

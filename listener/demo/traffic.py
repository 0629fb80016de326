"""Invented traders: they create tokens and buy and sell them, some tokens far more than others."""

import random
from typing import Final

from web3.exceptions import Web3Exception

from listener.demo.launchpad import ETHER, Curve, Launchpad

NAMES: Final = (
    ("Moon Otter", "OTTER"), ("Quantum Toast", "TOAST"), ("Paper Tiger", "PAPER"), ("Lazy Comet", "COMET"),
    ("Disco Llama", "LLAMA"), ("Night Mango", "MANGO"), ("Turbo Snail", "SNAIL"), ("Cosmic Pickle", "PICKLE"),
    ("Velvet Shark", "SHARK"), ("Electric Yak", "YAK"), ("Pixel Whale", "PIXEL"), ("Rogue Biscuit", "CRUMB"),
)  # fmt: skip


class Traffic:
    """Random trades with a seed.

    Args:
        launchpad: where to trade; blocks are mined by the chain itself.
        seed: the same seed asks for the same trades.
        markets: how many tokens are created at most.
    """

    def __init__(self, launchpad: Launchpad, seed: int, markets: int) -> None:
        self._launchpad = launchpad
        self._random = random.Random(seed)  # noqa: S311 - not a secret
        self._markets = min(markets, len(NAMES))
        self._curves: list[Curve] = []
        self._mood: list[float] = []

    def create(self) -> Curve:
        """Create the next token."""
        name, symbol = NAMES[len(self._curves)]
        curve = self._launchpad.create(name, symbol, self._random.randrange(len(self._launchpad.accounts)))
        self._curves.append(curve)
        self._mood.append(0.55)
        return curve

    def step(self) -> None:
        """One trade, or now and then a new token. A trade that the curve refuses is left out."""
        if len(self._curves) < self._markets and self._random.random() < 0.02:
            self.create()
        place = min(int(self._random.expovariate(1.2)), len(self._curves) - 1)
        curve = self._curves[place]
        drift = self._random.gauss(0, 0.05)
        self._mood[place] = min(max(self._mood[place] * 0.98 + 0.01 + drift, 0.3), 0.7)
        trader = self._random.randrange(len(self._launchpad.accounts))
        try:
            held = self._launchpad.balance(curve, trader)
            if held and self._random.random() > self._mood[place]:
                self._launchpad.sell(curve, int(held * self._random.uniform(0.1, 0.8)), trader)
            else:
                self._launchpad.buy(curve, int(self._random.lognormvariate(-2.5, 1.0) * ETHER), trader)
        except Web3Exception:
            return

"""Columns of prices: exact, in the order of what they stand for, and cheap to write.

A price has 24 significant digits. Its power of ten and its upper twelve digits share one word, its lower
twelve are another: the words compare like the prices.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

import numpy as np

from listener.domain.value_objects import EXACT, PRICE_DIGITS, Price, ratio
from listener.infrastructure.decimal_texts import repeated, rounded, twelve
from listener.infrastructure.exact import Bytes, Flags, Halves, Integers, integers

Prices = Halves
"""The last axis holds a price's two words; both are zero where there is none."""

_HALF: Final = PRICE_DIGITS // 2
_SHARE: Final = np.uint64(40)
"""Bits of the upper digits."""
_UPPER: Final = np.uint64((1 << 40) - 1)
_ONE: Final = 1 << 20
"""What stands for the power of ten of 1 to 9."""
_TENS: Final = np.array([10**place for place in range(_HALF)][::-1], np.int64)
_ZERO, _POINT = ord("0"), ord(".")
_MOST: Final = np.uint64(2**64 - 1)


def ratios(numerator: Halves, denominator: Halves, exponent: Integers) -> Prices:
    """`ratio` of each row."""
    digits, left = rounded(numerator, denominator)
    first = (digits != _ZERO).argmax(axis=1)
    digits = np.pad(digits, ((0, 0), (0, PRICE_DIGITS)))
    digits = np.take_along_axis(digits, first[:, None] + np.arange(PRICE_DIGITS), axis=1)
    values = np.where(digits, digits - np.uint8(_ZERO), 0).astype(np.int64)
    prices = np.empty((len(digits), 2), np.uint64)
    power = exponent - first - 1 + _ONE
    prices[:, 0] = power << int(_SHARE) | values[:, :_HALF] @ _TENS
    prices[:, 1] = values[:, _HALF:] @ _TENS
    if left.any():
        pairs = zip(
            integers(numerator[left]), integers(denominator[left]), exponent[left].tolist(), strict=True
        )
        prices[left] = prices_of([ratio(*pair) for pair in pairs])
    return prices


def prices_of(prices: Iterable[Price | None]) -> Prices:
    """A column of prices."""
    return np.array([_words(price) for price in prices], np.uint64).reshape(-1, 2)


def _words(price: Price | None) -> tuple[int, int]:
    if price is None:
        return 0, 0
    power = price.adjusted()
    upper, lower = divmod(int(price.scaleb(PRICE_DIGITS - 1 - power, EXACT)), 10**_HALF)
    return power + _ONE << int(_SHARE) | upper, lower


def decimals_of(prices: Prices) -> list[Price]:
    """Prices one by one. There must be one in each row."""
    power = (prices[:, 0] >> _SHARE).astype(np.int64) - (_ONE + PRICE_DIGITS - 1)
    upper, lower = (prices[:, 0] & _UPPER).tolist(), prices[:, 1].tolist()
    return [
        Decimal(high * 10**_HALF + low).scaleb(scale, EXACT)
        for scale, high, low in zip(power.tolist(), upper, lower, strict=True)
    ]


def highest(prices: Prices, starts: Integers) -> Prices:
    """The highest price of each run of rows."""
    return _best(prices, starts, np.maximum, np.uint64(0))


def lowest(prices: Prices, starts: Integers) -> Prices:
    """The lowest price of each run of rows."""
    return _best(prices, starts, np.minimum, _MOST)


def _best(prices: Prices, starts: Integers, best_of: np.ufunc, worst: np.uint64) -> Prices:
    upper = best_of.reduceat(prices[:, 0], starts)
    best = prices[:, 0] == np.repeat(upper, np.diff(starts, append=len(prices)))
    return np.stack([upper, best_of.reduceat(np.where(best, prices[:, 1], worst), starts)], axis=1)


def below(one: Prices, other: Prices) -> Flags:
    """Where a price is lower than another."""
    less: Flags = (one[:, 0] < other[:, 0]) | ((one[:, 0] == other[:, 0]) & (one[:, 1] < other[:, 1]))
    return less


def price_texts(prices: Prices) -> Bytes:
    """`format_decimal` of each, zero bytes where a text is shorter; none where there is no price."""
    digits = twelve([prices[:, 0] & _UPPER, prices[:, 1]])
    last = PRICE_DIGITS - 1 - (digits > _ZERO)[:, ::-1].argmax(axis=1)
    powers, which = np.unique(prices[:, 0] >> _SHARE, return_inverse=True)
    scales = [(place, int(power) - _ONE) for place, power in enumerate(powers.tolist()) if power]
    width = max((max(PRICE_DIGITS + 1 - min(scale, 0), scale + 1) for _, scale in scales), default=0)
    told = np.zeros((len(prices), width), np.uint8)
    for place, scale in scales:
        rows = np.flatnonzero(which == place)
        text = _scaled(digits[rows], last[rows], scale)
        told[rows, : text.shape[1]] = text
    return told


def _scaled(digits: Bytes, last: Integers, scale: int) -> Bytes:
    """Digits with their point, the first of them worth `10**scale`; no zeros after the place `last`."""
    kept = digits * (np.arange(PRICE_DIGITS) <= last[:, None])
    if scale < 0:
        return np.concatenate([repeated("0." + "0" * (-scale - 1), len(digits)), kept], axis=1)
    whole = scale + 1
    if whole >= PRICE_DIGITS:
        return np.concatenate([digits, repeated("0" * (whole - PRICE_DIGITS), len(digits))], axis=1)
    point = (_POINT * (last >= whole)).astype(np.uint8)[:, None]
    return np.concatenate([digits[:, :whole], point, kept[:, whole:]], axis=1)

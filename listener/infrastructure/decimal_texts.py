"""Decimal texts of whole columns of numbers: rows of bytes, zero bytes where a text is shorter."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from listener.domain.value_objects import PRICE_DIGITS, format_decimal, ratio
from listener.infrastructure.exact import LIMB, LOW, Bytes, Flags, Halves, Integers, integers, limbs_of

GROUPS: Final = 4
"""Of nine digits, from the first that is not zero: 28 digits at least."""
MOST_GROUPS: Final = 6
"""Of zeros before them; what is smaller is divided by itself."""

MOST_CARRIES: Final = 4
"""Of nines in a row that are rounded up."""

_GROUP: Final = np.uint64(10**9)
_TEN_THOUSAND: Final = np.uint64(10_000)
_FOUR: Final = np.array([f"{number:04}" for number in range(10_000)], np.bytes_).view(np.uint32)
_ZERO, _FIVE, _NINE, _POINT = ord("0"), ord("5"), ord("9"), ord(".")
_LARGE: Final = np.uint64(2**58)
"""Of the upper half of a divisor: thrice as much still fits."""


def quotients(numerator: Halves, denominator: Halves, exponent: int) -> Bytes:
    """`format_decimal(ratio(…))` of each pair, zero bytes where a text is shorter.

    Long division, nine digits at a time, of quotients below one; what is rounded up over several digits, and
    all other quotients, are divided one by one.
    """
    digits, left = rounded(numerator, denominator)
    if exponent > 0:
        left[:] = True
    place = np.arange(digits.shape[1])
    last = len(place) - 1 - (digits > _ZERO)[:, ::-1].argmax(axis=1)
    digits *= place <= last[:, None]
    shift = repeated("0." + "0" * -min(exponent, 0), len(digits))
    told = np.concatenate([shift, digits], axis=1)
    if left.any():
        told = _replaced(told, left, numerator, denominator, exponent)
    return told


def rounded(numerator: Halves, denominator: Halves) -> tuple[Bytes, Flags]:
    """Digits behind the point of quotients below one, rounded to those of a price and followed by zero bytes.

    In the rows that are flagged they are not right.
    """
    digits, left = _fractions(numerator, denominator)
    first = (digits != _ZERO).argmax(axis=1)
    place, row = np.arange(digits.shape[1]), np.arange(len(digits))
    end = first + PRICE_DIGITS
    left |= (end >= len(place)) | (digits[row, first] == _ZERO)
    end[left] = 1
    following = digits[row, end]
    more = ((digits != _ZERO) & (place > end[:, None])).any(axis=1)
    left |= (following == _FIVE) & ~more
    up = np.flatnonzero((following >= _FIVE) & ~left)
    digits[up, end[up] - 1] += 1
    left |= _carried(digits, up, end[up] - 1)
    digits *= place < end[:, None]
    return digits, left


def _carried(digits: Bytes, rows: Integers, places: Integers) -> Flags:
    """Carry what is above nine; the rows where that does not end soon."""
    for _ in range(MOST_CARRIES):
        above = (digits[rows, places] > _NINE) & (places > 0)
        rows, places = rows[above], places[above]
        digits[rows, places] = _ZERO
        places -= 1
        digits[rows, places] += 1
    endless: Flags = np.logical_or.reduce(digits > _NINE, axis=1)
    return endless


def _replaced(told: Bytes, rows: Flags, numerator: Halves, denominator: Halves, exponent: int) -> Bytes:
    """The same with some rows divided one by one."""
    pairs = zip(integers(numerator[rows]), integers(denominator[rows]), strict=True)
    texts = texts_of([format_decimal(ratio(*pair, exponent)) for pair in pairs])
    width = max(told.shape[1], texts.shape[1])
    wide = np.zeros((len(told), width), np.uint8)
    wide[:, : told.shape[1]] = told
    wide[rows] = 0
    wide[rows, : texts.shape[1]] = texts
    return wide


def _fractions(numerator: Halves, denominator: Halves) -> tuple[Bytes, Flags]:
    """Digits behind the point, enough for a price and its rounding; and for which rows they are not right."""
    upper, lower = denominator[:, 0], denominator[:, 1]
    rest_upper, rest_lower = numerator[:, 0], numerator[:, 1]
    left = (upper >= _LARGE) | (rest_upper > upper) | ((rest_upper == upper) & (rest_lower >= lower))
    by = upper * 2.0**64 + lower
    with np.errstate(divide="ignore", invalid="ignore"):
        smallest = float(((rest_upper * 2.0**64 + rest_lower) / by)[~left].min(initial=1.0))
    zeros = min(int(-math.log10(smallest)) // 9, MOST_GROUPS) if smallest > 0 else MOST_GROUPS
    limbs = [lower & LOW, lower >> LIMB, upper & LOW, upper >> LIMB]
    groups: list[Halves] = []
    for _ in range(zeros + GROUPS):
        guess = (rest_upper * 2.0**64 + rest_lower) * 1e9 / by
        guess = np.where(left, 0, guess)
        group = np.maximum(guess.astype(np.int64) - 1, 0)
        rests = (rest_lower & LOW, rest_lower >> LIMB, rest_upper & LOW, rest_upper >> LIMB)
        carry = np.zeros(len(group), np.int64)
        found: list[Halves] = []
        for rest, limb in zip(rests, limbs, strict=True):
            carry = rest.astype(np.int64) * 10**9 - group * limb.astype(np.int64) + carry
            found.append((carry & 0xFFFF_FFFF).astype(np.uint64))
            carry >>= 32
        rest_lower, rest_upper = found[0] | found[1] << LIMB, found[2] | found[3] << LIMB
        for _ in range(2):
            more = (rest_upper > upper) | ((rest_upper == upper) & (rest_lower >= lower))
            borrow = (rest_lower < lower).astype(np.uint64)
            rest_upper = np.where(more, rest_upper - upper - borrow, rest_upper)
            rest_lower = np.where(more, rest_lower - lower, rest_lower)
            group += more
        groups.append(group.astype(np.uint64))
    return _nines(groups), left


def units(halves: Halves, decimals: int) -> Bytes:
    """`format_units` of each, zero bytes where a text is shorter."""
    digits = _digits(halves)
    if digits.shape[1] <= decimals:
        missing = decimals + 1 - digits.shape[1]
        digits = np.concatenate([np.full((len(digits), missing), _ZERO, np.uint8), digits], axis=1)
    width = digits.shape[1]
    point = width - decimals
    counts = digits != _ZERO
    first = np.where(counts.any(axis=1), counts.argmax(axis=1), width)
    last = width - 1 - counts[:, ::-1].argmax(axis=1)
    last[first == width] = -1
    place = np.arange(width)
    told = np.empty((len(digits), width + 1), np.uint8)
    told[:, :point] = digits[:, :point] * (place[:point] >= np.minimum(first, point - 1)[:, None])
    told[:, point] = _POINT * (last >= point)
    told[:, point + 1 :] = digits[:, point:] * (place[point:] <= last[:, None])
    return told


def _digits(halves: Halves) -> Bytes:
    """Decimal digits, all rows as many."""
    limbs = limbs_of(halves)
    groups: list[Halves] = []
    while limbs:
        rest = np.zeros(len(halves), np.uint64)
        quotients: list[Halves] = []
        for limb in reversed(limbs):
            rest = rest << LIMB | limb
            quotient = rest // _GROUP
            rest -= quotient * _GROUP
            quotients.append(quotient)
        groups.append(rest)
        limbs = quotients[::-1]
        while limbs and not limbs[-1].any():
            limbs.pop()
    return _nines(groups[::-1] or [np.zeros(len(halves), np.uint64)])


def twelve(groups: Sequence[Halves]) -> Bytes:
    """Digits of numbers below 10**12, side by side."""
    told = np.empty((len(groups[0]), 3 * len(groups)), np.uint32)
    for place, group in enumerate(groups):
        upper = group // _TEN_THOUSAND
        first = upper // _TEN_THOUSAND
        told[:, 3 * place] = _FOUR[first]
        told[:, 3 * place + 1] = _FOUR[upper - first * _TEN_THOUSAND]
        told[:, 3 * place + 2] = _FOUR[group - upper * _TEN_THOUSAND]
    return told.view(np.uint8)


def _nines(groups: Sequence[Halves]) -> Bytes:
    """Digits of numbers below 10**9, side by side."""
    told = np.empty((len(groups[0]), 9 * len(groups)), np.uint8)
    for place, group in enumerate(groups):
        upper = group // _TEN_THOUSAND
        first = upper // _TEN_THOUSAND
        told[:, 9 * place] = first + np.uint64(_ZERO)
        for at, four in ((1, upper - first * _TEN_THOUSAND), (5, group - upper * _TEN_THOUSAND)):
            told[:, 9 * place + at : 9 * place + at + 4] = _FOUR[four].view(np.uint8).reshape(-1, 4)
    return told


def texts_of(texts: Sequence[str]) -> Bytes:
    """A row of bytes for each text, zero bytes where it is shorter."""
    rows = np.array(texts, np.bytes_)
    return rows.view(np.uint8).reshape(len(rows), -1)


def repeated(text: str, rows: int) -> Bytes:
    """The same text in so many rows."""
    return np.broadcast_to(np.frombuffer(text.encode(), np.uint8), (rows, len(text)))

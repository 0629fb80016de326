"""Decimal texts of whole columns of numbers: rows of bytes, zero bytes where a text is shorter."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from listener.domain.value_objects import PRICE_DIGITS, format_decimal, ratio
from listener.infrastructure.exact import LIMB, Bytes, Flags, Halves, Integers, doubles, integers, limbs_of

DIGITS: Final = 8
"""Digits of a group."""
GROUPS: Final = 4
"""From the first digit that is not zero: 25 digits at least."""
MOST_GROUPS: Final = 6
"""Of zeros before them; what is smaller is divided by itself."""

MOST_CARRIES: Final = 4
"""Of nines in a row that are rounded up."""

_GROUP: Final = 10**DIGITS
_TEN_THOUSAND: Final = np.uint32(10_000)
_LOW, _LIMB = 0xFFFF_FFFF, 32
_FOUR: Final = np.array([f"{number:04}" for number in range(10_000)], np.bytes_).view(np.uint32)
_ZERO, _FIVE, _NINE, _POINT = ord("0"), ord("5"), ord("9"), ord(".")
_LARGE: Final = np.uint64(2**58)
"""Of the upper half of a divisor: thrice as much still fits."""


def quotients(numerator: Halves, denominator: Halves, exponent: int) -> Bytes:
    """`format_decimal(ratio(…))` of each pair, zero bytes where a text is shorter.

    Long division of quotients below one; what is rounded up over several digits, and all other quotients, are
    divided one by one.
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
    digits, rest, left = _fractions(numerator, denominator)
    first = (digits != _ZERO).argmax(axis=1)
    place, row = np.arange(digits.shape[1]), np.arange(len(digits))
    end = first + PRICE_DIGITS
    left |= (end >= len(place)) | (digits[row, first] == _ZERO)
    end[left] = 1
    following = digits[row, end]
    half = np.flatnonzero((following == _FIVE) & ~rest)
    more = ((digits[half] != _ZERO) & (place > end[half, None])).any(axis=1)
    left[half[~more]] = True
    up = np.flatnonzero((following >= _FIVE) & ~left)
    digits[up, end[up] - 1] += 1
    left[_carried(digits, up, end[up] - 1)] = True
    digits *= place < end[:, None]
    return digits, left


def _carried(digits: Bytes, rows: Integers, places: Integers) -> Integers:
    """Carry what is above nine; the rows where that does not end soon."""
    for _ in range(MOST_CARRIES):
        above = digits[rows, places] > _NINE
        rows, places = rows[above], places[above]
        if not len(rows):
            break
        inner = places > 0
        digits[rows[inner], places[inner]] = _ZERO
        places = places - inner
        digits[rows[inner], places[inner]] += 1
    return rows[digits[rows, places] > _NINE]


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


def _fractions(numerator: Halves, denominator: Halves) -> tuple[Bytes, Flags, Flags]:
    """Digits behind the point, enough to round; in which rows there are more; in which they are wrong.

    Long division, where each group of digits is guessed with doubles: it may be too large by one, and what is
    left negative, which the next group makes up for.
    """
    upper, lower = denominator[:, 0], denominator[:, 1]
    left = (upper >= _LARGE) | (numerator[:, 0] > upper)
    left |= (numerator[:, 0] == upper) & (numerator[:, 1] >= lower)
    divisor = _signed(denominator, left)
    rest = [*_signed(numerator, left), *np.zeros((len(divisor), len(left)), np.int64)][: len(divisor)]
    by = 1 / np.where(left, 1.0, _double(divisor))
    smallest = float((_double(rest) * by)[~left].min(initial=1.0))
    zeros = min(int(-math.log10(smallest)) // DIGITS, MOST_GROUPS) if smallest > 0 else MOST_GROUPS
    groups: list[Integers] = []
    for _ in range(zeros + GROUPS):
        group = np.rint(_double(rest) * by * _GROUP).astype(np.int64)
        carry = np.zeros(len(group), np.int64)
        for place, limb in enumerate(divisor):
            carry += rest[place] * _GROUP - group * limb
            rest[place] = carry & _LOW
            carry >>= _LIMB
        rest[-1] += carry << _LIMB
        groups.append(group)
    groups[-1] -= rest[-1] < 0
    for place in range(len(groups) - 1, 0, -1):
        carry = groups[place] // _GROUP
        groups[place] -= carry * _GROUP
        groups[place - 1] += carry
    return _eights(groups), np.logical_or.reduce([limb != 0 for limb in rest]), left


def _signed(halves: Halves, left: Flags) -> list[Integers]:
    """Limbs, the lowest first; zero in the rows that are left. There is one at least."""
    return [limb.astype(np.int64) for limb in limbs_of(np.where(left[:, None], 0, halves))]


def _double(limbs: Sequence[Integers]) -> npt.NDArray[np.float64]:
    """About the same."""
    whole = limbs[-1].astype(np.float64)
    for limb in limbs[-2::-1]:
        whole = whole * 2.0**32 + limb
    return whole


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
    if not len(halves) or int(halves[:, 0].max()) >> 32 == 0:
        return _eights(_groups(halves))
    limbs = limbs_of(halves)
    groups: list[Halves] = []
    while limbs:
        rest = np.zeros(len(halves), np.uint64)
        quotients: list[Halves] = []
        for limb in reversed(limbs):
            rest = rest << LIMB | limb
            quotient = rest // np.uint64(_GROUP)
            rest -= quotient * np.uint64(_GROUP)
            quotients.append(quotient)
        groups.append(rest)
        limbs = quotients[::-1]
        while limbs and not limbs[-1].any():
            limbs.pop()
    return _eights(groups[::-1])


def _groups(halves: Halves) -> list[Integers]:
    """Groups of digits of integers below 2**96: the upper ones are guessed with doubles, right within one."""
    upper = np.rint(doubles(halves) * 1e-16).astype(np.int64)
    lower = halves[:, 1].view(np.int64) - upper * 10**16
    below = lower < 0
    upper -= below
    lower += below * np.int64(10**16)
    groups: list[Integers] = []
    for part in (upper, lower):
        if groups or part is lower or part.any():
            first = part // _GROUP
            groups += [first, part - first * _GROUP]
    return groups


def _eights(groups: Sequence[Integers | Halves]) -> Bytes:
    """Digits of numbers below 10**8, side by side."""
    told = np.empty((len(groups[0]), 2 * len(groups)), np.uint32)
    for place, group in enumerate(groups):
        eight = group.astype(np.uint32)
        upper = eight // _TEN_THOUSAND
        told[:, 2 * place] = _FOUR[upper]
        told[:, 2 * place + 1] = _FOUR[eight - upper * _TEN_THOUSAND]
    return told.view(np.uint8)


def twelve(groups: Sequence[Halves]) -> Bytes:
    """Digits of numbers below 10**12, side by side."""
    told = np.empty((len(groups[0]), 3 * len(groups)), np.uint32)
    for place, group in enumerate(groups):
        upper = group // np.uint64(_GROUP)
        lower = (group - upper * np.uint64(_GROUP)).astype(np.uint32)
        middle = lower // _TEN_THOUSAND
        told[:, 3 * place] = _FOUR[upper]
        told[:, 3 * place + 1] = _FOUR[middle]
        told[:, 3 * place + 2] = _FOUR[lower - middle * _TEN_THOUSAND]
    return told.view(np.uint8)


def texts_of(texts: Sequence[str]) -> Bytes:
    """A row of bytes for each text, zero bytes where it is shorter."""
    rows = np.array(texts, np.bytes_)
    return rows.view(np.uint8).reshape(len(rows), -1)


def repeated(text: str, rows: int) -> Bytes:
    """The same text in so many rows."""
    return np.broadcast_to(np.frombuffer(text.encode(), np.uint8), (rows, len(text)))

"""Exact arithmetic with whole columns of large unsigned integers.

An integer below 2**128 is two 64-bit halves; what is computed with them goes through 32-bit limbs, or through
Python's integers where few are left.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Halves = npt.NDArray[np.uint64]
"""Unsigned integers below 2**128: the last axis holds their upper and their lower 64 bits."""

LOW: Final = np.uint64(0xFFFF_FFFF)
"""The bits of a limb."""
LIMB: Final = np.uint64(32)
"""How many these are."""
_LOW_HALF: Final = (1 << 64) - 1
_NEARLY: Final = 1e-12
"""Quotients of doubles that are closer than this may be in the wrong order: exact ones decide."""


def integers(halves: Halves) -> list[int]:
    """Python's integers."""
    whole: list[int] = halves[:, 1].tolist()
    large = np.flatnonzero(halves[:, 0])
    for place, upper in zip(large.tolist(), halves[large, 0].tolist(), strict=True):
        whole[place] |= upper << 64
    return whole


def limbs_of(halves: Halves) -> list[npt.NDArray[np.uint64]]:
    """Limbs of 32 bits, the lowest first, without upper ones that are zero in all rows."""
    limbs = [halves[:, 1] & LOW, halves[:, 1] >> LIMB, halves[:, 0] & LOW, halves[:, 0] >> LIMB]
    while len(limbs) > 1 and not limbs[-1].any():
        limbs.pop()
    return limbs


def halves_of(values: Sequence[int]) -> Halves:
    """Inverse of `integers`.

    Raises:
        OverflowError: one is 2**128 or more.
    """
    return np.array([(value >> 64, value & _LOW_HALF) for value in values], np.uint64).reshape(-1, 2)


def totals(halves: Halves, starts: Integers) -> Halves:
    """Exact sums of runs of rows, which must stay below 2**128."""
    upper, lower = halves[..., 0], halves[..., 1]
    sums = [np.add.reduceat(limb, starts) for limb in (lower & LOW, lower >> LIMB)]
    sums[1] += sums[0] >> LIMB
    whole = np.empty((len(starts), *halves.shape[1:]), np.uint64)
    whole[..., 1] = sums[1] << LIMB | sums[0] & LOW
    whole[..., 0] = np.add.reduceat(upper, starts) + (sums[1] >> LIMB)
    return whole


def added(one: Halves, other: Halves) -> Halves:
    """Exact sums of two columns, which must stay below 2**128."""
    whole = one + other
    whole[..., 0] += whole[..., 1] < one[..., 1]
    return whole


def doubles(halves: Halves) -> npt.NDArray[np.float64]:
    """About the same."""
    return halves[..., 0].astype(np.float64) * 2.0**64 + halves[..., 1]


def extremes(
    numerator: Halves, denominator: Halves, starts: Integers, ends: Integers
) -> tuple[Integers, Integers]:
    """The rows of the highest and of the lowest quotient of each run; of equals, any."""
    quotient = doubles(numerator) / doubles(denominator)
    lengths = ends - starts
    found: list[Integers] = []
    for best_of, sign in ((np.maximum, 1.0), (np.minimum, -1.0)):
        best = best_of.reduceat(quotient, starts)
        near = quotient * sign >= np.repeat(best * sign * (1 - sign * _NEARLY), lengths)
        candidates = np.flatnonzero(near)
        run = np.searchsorted(starts, candidates, side="right") - 1
        _, first, count = np.unique(run, return_index=True, return_counts=True)
        chosen = candidates[first]
        for place in np.flatnonzero(count > 1).tolist():
            some = candidates[first[place] : first[place] + count[place]]
            chosen[place] = _exactly(numerator, denominator, some, highest=sign > 0)
        found.append(chosen)
    return found[0], found[1]


def _exactly(numerator: Halves, denominator: Halves, rows: Integers, *, highest: bool) -> int:
    """The row of the highest or lowest quotient."""
    pairs = list(zip(integers(numerator[rows]), integers(denominator[rows]), strict=True))
    best = 0
    for place in range(1, len(pairs)):
        difference = pairs[place][0] * pairs[best][1] - pairs[best][0] * pairs[place][1]
        if difference and (difference > 0) is highest:
            best = place
    return int(rows[best])

"""Exact arithmetic with whole columns of large unsigned integers.

An integer below 2**128 is two 64-bit halves; what is computed with them goes through 32-bit limbs, or through
Python's integers where few are left.
"""

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
    while limbs and not limbs[-1].any():
        limbs.pop()
    return limbs


def sums_of(halves: Halves, starts: Integers) -> list[int]:
    """Exact sums of runs of rows."""
    sums = [np.add.reduceat(limb, starts) for limb in limbs_of(halves)]
    sums += [np.zeros(len(starts), np.uint64)] * (4 - len(sums))
    for place in range(3):
        sums[place + 1] = sums[place + 1] + (sums[place] >> LIMB)
        sums[place] = sums[place] & LOW
    upper, lower = sums[2] | sums[3] << LIMB, sums[0] | sums[1] << LIMB
    whole = integers(np.stack([upper, lower], axis=1))
    for place in np.flatnonzero(sums[3] >> LIMB).tolist():
        whole[place] += int(sums[3][place] >> LIMB) << 128
    return whole


def extremes(
    numerator: Halves, denominator: Halves, starts: Integers, ends: Integers
) -> tuple[Integers, Integers]:
    """The rows of the highest and of the lowest quotient of each run; of equals, any."""
    quotient = _double(numerator) / _double(denominator)
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


def _double(halves: Halves) -> npt.NDArray[np.float64]:
    return halves[:, 0].astype(np.float64) * 2.0**64 + halves[:, 1]


def _exactly(numerator: Halves, denominator: Halves, rows: Integers, *, highest: bool) -> int:
    """The row of the highest or lowest quotient."""
    pairs = list(zip(integers(numerator[rows]), integers(denominator[rows]), strict=True))
    best = 0
    for place in range(1, len(pairs)):
        difference = pairs[place][0] * pairs[best][1] - pairs[best][0] * pairs[place][1]
        if difference and (difference > 0) is highest:
            best = place
    return int(rows[best])

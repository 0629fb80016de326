"""What is assumed of chains."""

import pytest

from listener.config.chains import FINALITY_BLOCKS_MAX, UNKNOWN, known_chains, profile

FINAL_AT_ONCE = {43114, 80094, 146, 143, 999, 1329}
DEVELOPMENT = {31337, 1337}
NAMED = {
    1,
    11155111,
    56,
    137,
    42161,
    10,
    8453,
    43114,
    100,
    324,
    59144,
    534352,
    81457,
    5000,
    80094,
    146,
    143,
    130,
    480,
    2741,
    999,
    2020,
    42220,
    1329,
    31337,
    1337,
}


def test_the_usual_chains_are_known() -> None:
    """By their ids, each under a name of its own."""
    assert known_chains() == NAMED
    assert len({profile(chain).name for chain in NAMED}) == len(NAMED)


@pytest.mark.parametrize("chain", sorted(NAMED))
def test_a_window_is_wide_enough_and_bounded(chain: int) -> None:
    """Five minutes of blocks at least, unless each block is final at once; never more than can be kept."""
    known = profile(chain)
    assert 1 <= known.finality_blocks <= FINALITY_BLOCKS_MAX
    assert known.bloom in {"strict", "lenient", "off"}
    assert 1 <= len(known.native_symbol) <= 16
    if chain in DEVELOPMENT:
        assert known.block_ms is None
        return
    assert known.block_ms is not None
    assert 100 <= known.block_ms <= 15_000
    if chain not in FINAL_AT_ONCE:
        assert known.block_ms * known.finality_blocks >= 300_000


@pytest.mark.parametrize("chain", [0, 2, 999_999_999])
def test_an_unknown_chain_is_taken_with_care(chain: int) -> None:
    """No block time to hold it to, and no trust in its blooms."""
    assert profile(chain) == UNKNOWN
    assert (UNKNOWN.block_ms, UNKNOWN.finality_blocks, UNKNOWN.bloom) == (None, 64, "lenient")


def test_blooms_that_are_known_to_lie_are_not_held_against_anyone() -> None:
    """Polygon, zkSync, Sei and HyperEVM publish blooms that differ from their logs."""
    assert {profile(chain).bloom for chain in (137, 324, 2741, 1329)} == {"lenient"}
    assert profile(999).bloom == "off"

"""Amounts for tests by property: of every size, and where digits or bits begin."""

from typing import Final

from hypothesis import strategies as st

sizes: Final = st.one_of(
    st.integers(1, (1 << 128) - 1),
    st.integers(1, 1 << 64),
    st.integers(1, 1000),
    st.integers(0, 38).map(lambda power: 10**power),
    st.integers(1, 38).map(lambda power: 10**power - 1),
    st.integers(0, 127).map(lambda power: 1 << power),
)

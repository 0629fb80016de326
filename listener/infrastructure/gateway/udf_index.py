"""The datafeed's search on the index of all markets."""

from collections.abc import Sequence

from listener.infrastructure.gateway.market_index import MarketIndex, MarketSort


class IndexedSymbols:
    """`SymbolIndex`: what trades most comes first."""

    def __init__(self, index: MarketIndex) -> None:
        self._index = index

    def search(self, text: str, limit: int) -> Sequence[str]:
        """See `SymbolIndex.search`."""
        return self._index.find(text, MarketSort.VOLUME, limit).markets

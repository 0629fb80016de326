"""Venues: what their events mean. One file a venue; register it in `ALL`."""

from listener.infrastructure.blockchain.venues.bonding_curve import BondingCurve
from listener.infrastructure.blockchain.venues.venue import Venue, decode_log

ALL: tuple[type[Venue], ...] = (BondingCurve,)

__all__ = ["ALL", "BondingCurve", "Venue", "decode_log"]

"""Settings of the listing services' routes, and of what is recorded for them."""

from pydantic import Field
from pydantic_settings import BaseSettings


class ListingSettings(BaseSettings):
    """A part of `Settings`."""

    listings_enabled: bool = Field(default=True, examples=["false"])
    listing_retention_hours: int = Field(24, ge=1, le=8_760, examples=[24])
    listing_interval_ms: int = Field(10_000, ge=10, le=600_000, examples=[10_000])
    listing_max_bytes: int = Field(64_000_000, ge=100_000, le=8_000_000_000, examples=[64_000_000])

"""Settings of webhooks."""

from pydantic import Field
from pydantic_settings import BaseSettings


class WebhookSettings(BaseSettings):
    """A part of `Settings`."""

    webhooks_enabled: bool = Field(default=True, examples=["false"])
    webhooks_allow_private: bool = Field(default=False, examples=["true"])

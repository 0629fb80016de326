"""Wiring of what operators change webhook endpoints with, for REST and the command line."""

from listener.application.services.webhook_admin import UrlRules, WebhookAdmin
from listener.config.settings import Settings
from listener.infrastructure.clock import SystemClock
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.outbox import RedisOutbox
from listener.infrastructure.redis.webhook_store import RedisWebhooks


def url_rules(settings: Settings) -> UrlRules:
    """Which URLs endpoints may have."""
    private = settings.webhooks_allow_private
    return UrlRules(insecure=private or settings.environment != "production", private=private)


def webhook_admin(settings: Settings, database: Database) -> WebhookAdmin:
    """Changes endpoints in a Redis that may be written."""
    keys = Keys(settings.chain_id)
    records, outbox = RedisWebhooks(database, keys), RedisOutbox(database, keys)
    return WebhookAdmin(records, outbox, SystemClock(), url_rules(settings))

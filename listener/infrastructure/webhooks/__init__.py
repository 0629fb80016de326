"""Webhooks: signatures, and the way to endpoints."""

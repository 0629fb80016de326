"""Sockets that others listen to."""

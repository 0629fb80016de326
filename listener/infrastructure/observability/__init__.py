"""What the service says of itself: logs, health, progress."""

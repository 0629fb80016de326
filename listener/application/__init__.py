"""What the service does with blocks, in terms of ports. No sockets, no clock, no settings."""

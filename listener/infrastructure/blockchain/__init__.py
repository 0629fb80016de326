"""The node: JSON-RPC, head hints, and what logs say."""

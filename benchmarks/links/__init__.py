"""What links really do between nodes that the relay connects."""

"""Parameter servers: what starting them costs, and what more of them bring."""

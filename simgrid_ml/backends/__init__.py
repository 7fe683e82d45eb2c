"""WHERE nodes live: each backend starts agents with given resources, and makes them vanish."""

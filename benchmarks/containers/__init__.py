"""What nodes in containers cost over plain ``docker run``, the host's loopback, and processes."""

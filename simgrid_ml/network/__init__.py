"""The wires between virtual nodes: which way they are made, making them, changing them live."""

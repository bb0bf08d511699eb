"""Lines about what became of a message."""

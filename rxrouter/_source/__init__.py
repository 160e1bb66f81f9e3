"""From a socket to a cold Observable."""

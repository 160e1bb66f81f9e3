"""Values of the wire only: no event loop, no HTTP client, no Rx."""

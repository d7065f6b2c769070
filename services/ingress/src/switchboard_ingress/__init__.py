"""The HTTP API: validates, accepts and answers."""

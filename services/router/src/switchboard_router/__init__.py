"""Plans routes and decides what follows every fact about a message."""

"""The rules of a message's life, as plain functions: state, a fact and the time go in, decisions come out. No IO."""

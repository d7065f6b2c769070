"""Callbacks in PostgreSQL, each change in one transaction for many events (DESIGN 5, 7).

Lock order everywhere: lanes by id, then streams.
"""

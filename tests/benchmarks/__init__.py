"""Benchmarks: what a message costs and how long it takes, against a floor of the same run (DESIGN 12)."""

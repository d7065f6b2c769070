"""Fixtures for every test."""

pytest_plugins = ["switchboard.testing.fixtures"]

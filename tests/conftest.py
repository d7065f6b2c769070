"""Fixtures for every test."""

import signal

pytest_plugins = ["switchboard.testing.fixtures"]


def pytest_configure() -> None:
    """Take everything down when told to stop, as with Ctrl-C: fixtures have started processes."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)

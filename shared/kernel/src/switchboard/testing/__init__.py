"""What tests of every distribution share: real servers, fresh databases, waiting for conditions.

Load the fixtures in a `conftest.py` with `pytest_plugins = ["switchboard.testing.fixtures"]`.
"""

from switchboard.embedded import free_port
from switchboard.testing.waiting import wait_until

__all__ = ["free_port", "wait_until"]

"""Apps for the flows of the vertical: one for each module, so that one's faults are nobody else's."""

from collections.abc import AsyncIterator

import pytest
from tests.flow.installed import Installed
from tests.flow.vertical.tenant import Tenant, tenant


@pytest.fixture(scope="module")
async def app(installation: Installed, request: pytest.FixtureRequest) -> AsyncIterator[Tenant]:
    """An app of this module. Its SMSC is given one second to answer."""
    name = request.module.__name__.rpartition(".")[2].removeprefix("test_")[:12]
    async with tenant(installation, name, sms={"response_timeout_seconds": 1.0}) as made:
        yield made

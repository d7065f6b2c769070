"""Ingress with an app in CONVERSATION mode."""

import pytest
from tests.flow.conversation_api.changes import changes  # noqa: F401 - a fixture
from tests.flow.ingress.conftest import (  # noqa: F401 - fixtures
    call,
    clock,
    make_app,
    pool,
    serve,
    settings,
    store,
    topic,
)

from switchboard.configuration import App, ConfigurationStore
from switchboard.records import ProcessingMode


@pytest.fixture
async def app(store: ConfigurationStore) -> App:  # noqa: F811
    app = make_app(processing_mode=ProcessingMode.CONVERSATION)
    await store.insert_app(app)
    return app


@pytest.fixture
async def dispatching(store: ConfigurationStore) -> App:  # noqa: F811
    """An app in dispatch mode."""
    app = make_app()
    await store.insert_app(app)
    return app

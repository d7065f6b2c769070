"""What clients' writes of contacts and conversations leave on the topic."""

from typing import Any

from tests.flow.ingress.conftest import Client

from switchboard.configuration import App
from switchboard.records import ProcessingMode

PHONE = {"channel": "SMS", "identity": "+46701230001"}
STORED_PHONE = {"channel": "SMS", "identity": "46701230001", "app_id": ""}
CHAT = {"channel": "TELEGRAM", "identity": "777000"}
TALKS = {"processing_mode": ProcessingMode.CONVERSATION}


async def a_contact(call: Client, *identities: dict[str, str], **fields: Any) -> Any:
    """A contact, made by the API."""
    made = await call("POST", "/contacts", {"channel_identities": identities or [PHONE], **fields})
    assert made.status == 200, made.body
    return made.json


async def a_conversation(call: Client, app: App, contact: Any, **fields: Any) -> Any:
    """A conversation, started by the API."""
    made = await call("POST", "/conversations", {"app_id": app.id, "contact_id": contact["id"], **fields})
    assert made.status == 200, made.body
    return made.json

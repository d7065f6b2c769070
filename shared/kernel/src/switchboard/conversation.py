"""A conversation: what one app and one contact say to each other, until it is stopped (conversation-api 4.5)."""

from typing import Any

from msgspec import Struct

from switchboard.ids import AppId, ContactId, ConversationId

#: How the API spells a time that never was (conversation-api 2).
NEVER = "1970-01-01T00:00:00Z"


class Conversation(Struct, frozen=True):
    """A conversation as the API and the conversation callbacks show it, always whole."""

    id: ConversationId
    app_id: AppId
    contact_id: ContactId
    #: RFC 3339, the time of its latest message; `NEVER` if it has none.
    last_received: str = NEVER
    #: The channel of the last exchange.
    active_channel: str = "CHANNEL_UNSPECIFIED"
    #: At most one conversation of an app and a contact is active.
    active: bool = True
    #: Deprecated by the API in favour of `metadata_json`.
    metadata: str = ""
    #: The conversation metadata.
    metadata_json: dict[str, Any] | None = None
    correlation_id: str = ""

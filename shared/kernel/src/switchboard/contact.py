"""A contact: a person as the project knows them, on all their channels (conversation-api 4.4)."""

from typing import Final

from msgspec import Struct

from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import ContactId

#: The display name of contacts that were made automatically.
UNKNOWN_NAME: Final = "Unknown"


class Contact(Struct, frozen=True):
    """A contact as the API and the contact callbacks show it, always whole."""

    id: ContactId
    channel_identities: tuple[ChannelIdentity, ...]
    #: The order in which sends to the contact try its channels; empty when none was given.
    channel_priority: tuple[ChannelName, ...] = ()
    #: "Unknown" when the contact was made automatically.
    display_name: str = ""
    email: str = ""
    #: The contact's identifier in the project's own system.
    external_id: str = ""
    metadata: str = ""
    #: A language code of the contract, e.g. EN_GB, else UNSPECIFIED.
    language: str = "UNSPECIFIED"


class DuplicatedIdentity(Struct, frozen=True):
    """A channel on which several contacts hold one identity."""

    channel: ChannelName
    contact_ids: tuple[str, ...]

"""What a message looks like on a channel before anything is sent (`messages:explain`)."""

from collections.abc import Mapping
from typing import Any, Protocol

from msgspec import Struct

from switchboard.content import AppMessage
from switchboard.ids import MessageId


class Preview(Struct, frozen=True, omit_defaults=True):
    """A message as a channel would carry it."""

    #: What it costs in the account's unit: parts on SMS, messages elsewhere.
    units: int
    #: How characters travel, where the channel has a choice: GSM7 or UCS2 on SMS.
    encoding: str = ""
    #: What would be submitted, in order, in the provider's words and without secrets. JSON values.
    submissions: tuple[Mapping[str, Any], ...] = ()


class Previews(Protocol):
    """What a channel's `render` module offers to those who look before they send."""

    def preview(
        self,
        message: AppMessage,
        recipient: str,
        message_id: MessageId,
        channel_properties: Mapping[str, str],
        settings: Any,
    ) -> Preview:
        """Render without sending. Raises Unsupported. Pure.

        `settings` are the operator's of the account (OPERATOR channels), None where they are not known.
        """
        ...

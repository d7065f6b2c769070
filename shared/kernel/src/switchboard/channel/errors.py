"""Errors of the channel contract.

ChannelError
├── NotConfigured      credentials or account settings missing or malformed: app or operator must change something
├── Unsupported        this content cannot go on this channel, even downgraded
└── InvalidWebhook     the request is not from the provider, or not what it claims
"""

from switchboard.reason import Reason


class ChannelError(Exception):
    """Base of what a channel refuses before anything leaves the process."""


class NotConfigured(ChannelError):
    """Credentials or settings are missing or malformed. The text names the field, never its value."""


class Unsupported(ChannelError):
    """This content cannot go on this channel."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.description)
        self.reason = reason


class InvalidWebhook(ChannelError):
    """The request is not from the provider, or not what it claims."""

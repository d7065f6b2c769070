"""Settings of the channel-adapter."""

from typing import Annotated, Final

from pydantic import Field, field_validator

import switchboard_channels
from switchboard.channel import registry
from switchboard.identity import ChannelName
from switchboard.settings import CommonSettings

_THERE: Final = registry.manifests(switchboard_channels)


class AdapterSettings(CommonSettings):
    """What the channel-adapter needs beyond what every service does."""

    channels: str = Field(default="", description="Channels to serve, comma-separated; empty: all there are.")
    slots: Annotated[int, Field(ge=4, le=10_000)] = Field(
        default=4_000,
        description="Attempts under way at once in this process. An account gets a quarter; half belong to its "
        "channels, in equal parts.",
    )
    public_url: str = Field(
        default="",
        pattern="^(https?://.*)?$",
        description="This service's address as providers reach it, without a path. With it webhooks are registered "
        "with providers that are told by a call (TELEGRAM); without it nothing is registered.",
    )

    @property
    def channel_names(self) -> tuple[ChannelName, ...]:
        """The channels to serve."""
        return _named(self.channels) or tuple(_THERE)

    @field_validator("channels")
    @classmethod
    def _are_there(cls, value: str) -> str:
        for name in _named(value):
            if name not in _THERE:
                raise ValueError(f"there is no channel {name}; there are {', '.join(_THERE)}")
        return value


def _named(channels: str) -> tuple[ChannelName, ...]:
    return tuple(ChannelName(name.strip().upper()) for name in channels.split(",") if name.strip())

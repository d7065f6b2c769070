"""Settings of the channel-adapter."""

from typing import Annotated

from pydantic import Field

from switchboard.identity import ChannelName
from switchboard.settings import CommonSettings


class AdapterSettings(CommonSettings):
    """What the channel-adapter needs beyond what every service does."""

    channels: str = Field(default="", description="Channels to serve, comma-separated; empty: all there are.")
    slots: Annotated[int, Field(ge=4, le=10_000)] = Field(
        default=4_000, description="Attempts under way at once in this process; one account gets a quarter."
    )
    public_url: str = Field(
        default="",
        pattern="^(https?://.*)?$",
        description="This service's address as providers reach it, without a path. With it webhooks are registered "
        "with providers that are told by a call (TELEGRAM); without it nothing is registered.",
    )

    def channel_names(self, found: tuple[ChannelName, ...]) -> tuple[ChannelName, ...]:
        """The channels to serve, of those found. Raises ValueError if one does not exist."""
        asked = tuple(ChannelName(name.strip().upper()) for name in self.channels.split(",") if name.strip())
        if missing := [name for name in asked if name not in found]:
            raise ValueError(f"there is no channel {missing[0]}; there are {', '.join(found)}")
        return asked or found

"""Settings of the router."""

from typing import Annotated

from pydantic import Field

from switchboard.settings import CommonSettings


class RouterSettings(CommonSettings):
    """What the router needs beyond what every service does."""

    default_lane_rate: Annotated[float, Field(gt=0)] = Field(
        20.0, description="Messages a second per app and channel where the app has no `rate_limits.outbound`."
    )
    capability_hours: Annotated[float, Field(gt=0, le=720)] = Field(
        24.0, description="Hours for which a channel's answer to a capability query is believed and used by routing."
    )

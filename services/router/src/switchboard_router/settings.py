"""Settings of the router."""

from typing import Annotated

from pydantic import Field

from switchboard.settings import CommonSettings


class RouterSettings(CommonSettings):
    """What the router needs beyond what every service does."""

    default_lane_rate: Annotated[float, Field(gt=0)] = Field(
        20.0, description="Messages a second per app and channel where the app has no `rate_limits.outbound`."
    )
    sweep_seconds: Annotated[float, Field(gt=0)] = Field(
        0.2, description="Pause between two looks for messages whose deadline passed, in seconds."
    )
    drain_lanes: bool = Field(True, description="Whether this instance drains lanes and sweeps deadlines.")

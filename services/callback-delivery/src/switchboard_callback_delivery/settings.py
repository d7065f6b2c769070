"""Settings of callback-delivery."""

from typing import Annotated

from pydantic import Field, field_validator

from switchboard.http.address import parse_networks
from switchboard.settings import CommonSettings


class DeliverySettings(CommonSettings):
    """What callback-delivery needs beyond what every service does."""

    slots: Annotated[int, Field(ge=8, le=10_000)] = Field(
        1024,
        description="Callbacks from the topic under way at once. One endpoint gets a quarter, more if it is quick.",
    )
    retry_slots: Annotated[int, Field(ge=8, le=10_000)] = Field(
        256,
        description="Callbacks that had waited under way at once. One endpoint gets a quarter, up to half if it is "
        "quick.",
    )
    endpoint_concurrency: Annotated[int, Field(ge=1, le=10_000)] = Field(
        50, description="Callbacks that one endpoint has to answer at once, from one process."
    )
    allowed_networks: str = Field(
        "",
        description="Networks that webhooks may be in besides the internet, comma-separated, e.g. `10.1.0.0/16`. "
        "Addresses that are private, loopback, link-local and the like are refused otherwise.",
    )
    trusted_certificates: str = Field(
        "", description="File of certificate authorities, PEM, trusted besides the system's."
    )
    suspend_after_hours: Annotated[float, Field(gt=0, le=24)] = Field(
        12, description="An endpoint that took nothing for so long is suspended: tried by the hour, its owner told."
    )
    drain_seconds: Annotated[float, Field(gt=0, le=60)] = Field(
        0.25, description="Pause between two looks for callbacks that are due, in seconds."
    )

    @field_validator("allowed_networks")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        parse_networks(text)
        return text

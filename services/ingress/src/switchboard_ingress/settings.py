"""Settings of ingress."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, SecretStr, field_validator

from switchboard.records import ProcessingMode
from switchboard.secrets import KeyRing
from switchboard.settings import CommonSettings


class UnconfiguredChannel(StrEnum):
    """What becomes of a send that names a channel its app has no credentials for (conversation-api 11.4)."""

    #: 400, as the reference says.
    REJECT = "reject"
    #: 200 and then FAILED, as it was observed.
    FAIL = "fail"


class IngressSettings(CommonSettings):
    """What ingress needs to know beyond what every service does."""

    token_seconds: Annotated[int, Field(ge=60, le=86400)] = Field(
        3600, description="How long an access token is good for, in seconds."
    )
    produce_seconds: Annotated[float, Field(gt=0, le=5)] = Field(
        3.0, description="How long a send waits for the broker before it answers 503, in seconds."
    )
    max_body_bytes: Annotated[int, Field(ge=1024, le=400_000)] = Field(
        262_144, description="Largest request body, in bytes."
    )
    max_pending_sends: Annotated[int, Field(ge=1)] = Field(
        5_000, description="Sends that may wait for the broker at once; more are answered 503."
    )
    project_requests_per_second: Annotated[int, Field(ge=0)] = Field(
        800, description="Requests a second of one project in this process, then 429; 0: no limit."
    )
    strict_ids: bool = Field(True, description="Whether an app id that is no ULID is a bad request.")
    unconfigured_channel: UnconfiguredChannel = Field(
        UnconfiguredChannel.REJECT,
        description="A send naming a channel the app has no credentials for: reject (400) or fail (200, then FAILED).",
    )
    default_processing_mode: ProcessingMode = Field(
        ProcessingMode.DISPATCH,
        description="Mode of an app that is made without one; apps keep what they were made with.",
    )
    idempotency_hours: Annotated[int, Field(ge=1, le=72)] = Field(
        48, description="How long an Idempotency-Key is remembered, in hours."
    )

    injection_days: Annotated[int, Field(ge=0, le=3650)] = Field(
        30, description="How old an injected message or event may be, in days; 0: as old as it likes."
    )

    @field_validator("secret_keys")
    @classmethod
    def _can_be_read(cls, value: SecretStr) -> SecretStr:
        KeyRing.parse(value.get_secret_value())
        return value

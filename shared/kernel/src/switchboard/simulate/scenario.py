"""What a scenario says: a message, its channels in order, and what each provider does. People write it as YAML."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from switchboard.identity import CONTRACT_CHANNELS
from switchboard.reason import ReasonCode
from switchboard.rules.progress import OnUnknown
from switchboard.rules.route import Success
from switchboard.status import Status

#: What channels report after they took a message (conversation-api 7.5; channel-providers 12, point 7). Of channels
#: that are not here nothing is published: a scenario says what they report.
REPORTS: Final = {
    "SMS": (Status.DELIVERED,),
    "MMS": (Status.DELIVERED,),
    "WHATSAPP": (Status.DELIVERED, Status.READ),
    "RCS": (Status.DELIVERED, Status.READ),
    "MESSENGER": (Status.DELIVERED, Status.READ),
    "INSTAGRAM": (Status.DELIVERED, Status.READ),
    "VIBERBM": (Status.DELIVERED, Status.READ),
}

Seconds = Annotated[float, Field(ge=0, le=10 * 365 * 86_400, allow_inf_nan=False)]
Wait = Annotated[int, Field(ge=10, le=259_200)]


class _Written(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Answer(StrEnum):
    """What comes of one submission."""

    ACCEPTED = "accepted"
    #: Some parts were taken, the rest refused.
    PARTLY_ACCEPTED = "partly_accepted"
    REJECTED = "rejected"
    FAILED_FOR_NOW = "failed_for_now"
    #: The request was sent and the answer never came.
    UNKNOWN = "unknown"
    #: The adapter took the order and died.
    CRASHED = "crashed"
    #: No adapter took the order.
    UNCLAIMED = "unclaimed"


class Receipt(_Written):
    """What the provider tells later."""

    status: Literal["DELIVERED", "READ", "FAILED"]
    after_seconds: Seconds = Field(description="Seconds from the submission.")
    part: int = Field(1, ge=1, le=255, description="Which part it is about.")
    reason: ReasonCode = Field(ReasonCode.RECIPIENT_NOT_REACHABLE, description="Of FAILED.")


class Attempt(_Written):
    """One submission to a provider, and what comes of it."""

    answer: Answer = Answer.ACCEPTED
    takes_seconds: Seconds = Field(0.0, description="Seconds until the answer is there.")
    waits_seconds: Seconds = Field(0.0, description="Seconds in the waiting line before it is submitted.")
    gate_closes_after_seconds: Seconds | None = Field(
        None, description="Seconds in the waiting line after which the channel's gate closes."
    )
    parts: int = Field(1, ge=1, le=255, description="Parts the message has.")
    reason: ReasonCode = Field(ReasonCode.CHANNEL_REJECT, description="Why it was not accepted.")
    fails_message: bool = Field(False, description="Of rejected: the message itself is wrong.")
    retry_after_seconds: Seconds | None = Field(None, description="Of failed_for_now: what the provider asks for.")
    throttled: bool = Field(False, description="Of failed_for_now: too fast, which is no try.")
    receipts: tuple[Receipt, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.gate_closes_after_seconds is not None and self.gate_closes_after_seconds >= self.waits_seconds:
            raise ValueError("gate_closes_after_seconds must be less than waits_seconds")
        if self.answer is Answer.PARTLY_ACCEPTED and self.parts < 2:
            raise ValueError("partly_accepted needs parts of 2 or more")
        for receipt in self.receipts:
            if receipt.part > self.parts:
                raise ValueError(f"a receipt is about part {receipt.part} of {self.parts}")
        return self


class Channel(_Written):
    """One channel, its facts and what its provider does."""

    channel: str
    reports: tuple[Literal["DELIVERED", "READ"], ...] | None = Field(
        None, description="What it reports; where not said, what the contract says of the channel."
    )
    deduplicates: bool = Field(False, description="The provider drops a second submission of one attempt.")
    can_retract: bool = Field(False, description="The provider can take back what it has not delivered.")
    horizon_seconds: Annotated[int, Field(gt=0)] = 72 * 3600
    send_timeout_seconds: Annotated[float, Field(gt=0)] = 15.0
    configured: bool = Field(True, description="The app has credentials for it.")
    has_identity: bool = Field(True, description="The recipient can be addressed on it.")
    #: One for each submission; the last one counts for all further ones.
    attempts: tuple[Attempt, ...] = (Attempt(),)  # type: ignore[call-arg]

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        if self.channel not in CONTRACT_CHANNELS:
            raise ValueError(f"unknown channel {self.channel}")
        if not self.attempts:
            raise ValueError("attempts must not be empty")
        return self

    @property
    def receipts(self) -> frozenset[Status]:
        """What the channel reports after it took a message."""
        if self.reports is None:
            return frozenset(REPORTS.get(self.channel, ()))
        return frozenset(map(Status, self.reports))


class Step(_Written):
    """`channel_steps` of messages:send."""

    channel: str
    success: Success = Success.DELIVERED
    wait_seconds: Wait | None = None
    switch_after_delivered: bool = False


class Message(_Written):
    """What the send and its app ask for."""

    ttl_seconds: Annotated[int, Field(ge=3)] | None = None
    fallback_wait_seconds: Wait | None = Field(None, description="The app's delivery_report_based_fallback.")
    retry_seconds: Annotated[int, Field(ge=30, le=3600)] = Field(3600, description="The app's retry_duration.")
    on_unknown: OnUnknown = OnUnknown.FAIL
    channel_steps: tuple[Step, ...] = ()


class Expectation(_Written):
    """What must come of it. What is not said may be anything."""

    status: Status | None = None
    channel: str | None = Field(None, description="The channel of the last callback.")
    reason: ReasonCode | None = None
    told: tuple[str, ...] | None = Field(None, description='All callbacks in order: "SUBMIT SMS", "DELIVERED SMS" …')


class Scenario(_Written):
    """One message and the world it meets."""

    starts_at: AwareDatetime = datetime(2026, 1, 1, tzinfo=UTC)
    message: Message = Message()  # type: ignore[call-arg]
    #: In the order in which they are tried.
    channels: tuple[Channel, ...] = Field(min_length=1)
    expect: Expectation | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        names = [channel.channel for channel in self.channels]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name} is there twice")
        for step in self.message.channel_steps:
            if step.channel not in names:
                raise ValueError(f"channel_steps: {step.channel} is not among the channels")
        return self

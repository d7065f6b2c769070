"""How to reach Kafka and how patient to be. Reading the environment happens in each service's settings."""

from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from switchboard.bus.policy import RetryLimits

DEAD_LETTERS_SUBJECT: Final = "dead-letters"


class BusSettings(BaseModel):
    """Everything the bus can be told. Times are seconds unless the name says milliseconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: `host:port`, or several separated by commas.
    bootstrap: str = Field(min_length=1)
    #: In front of every topic name, with its dot. Tests use a fresh one each.
    topic_prefix: str = "switchboard."
    #: Shown in the broker's logs and quotas: the service's name.
    client_id: str = Field(default="switchboard", min_length=1)
    #: The ordinal of this process where the platform hands them out; makes it a static group member.
    member_ordinal: int | None = Field(default=None, ge=0)

    #: A member not heard of for this long loses its partitions.
    session_timeout_ms: int = Field(default=6_000, ge=1_000)
    heartbeat_interval_ms: int = Field(default=2_000, ge=100)
    #: How long the group waits for a member to hand over its partitions. Must exceed drain and commit together.
    rebalance_timeout_ms: int = Field(default=30_000, ge=1_000)
    #: How long the broker holds a fetch that finds nothing; one that finds something is answered at once. Longer costs
    #: less while nothing happens, but a partition that was full waits for as long before it is fetched again.
    fetch_max_wait_ms: int = Field(default=200, ge=1)
    #: How long one poll waits for records: the longest a partition that reopens stays unread.
    poll_wait_ms: int = Field(default=100, ge=1)
    commit_interval_seconds: float = Field(default=1.0, gt=0)
    #: Finished records that bring the next commit forward.
    commit_every_records: int = Field(default=1_000, ge=1)
    commit_timeout_seconds: float = Field(default=5.0, gt=0)
    #: How long a revoke or a stop waits for records in hand.
    drain_seconds: float = Field(default=10.0, ge=0)
    #: How often the broker is asked for the ends of the partitions, to know the lag and that it answers.
    probe_interval_seconds: float = Field(default=5.0, gt=0)
    #: How long connecting may take before start gives up, and disconnecting before it is forced.
    connect_timeout_seconds: float = Field(default=10.0, gt=0)

    #: How long a publish waits for its acknowledgements unless the call says otherwise.
    publish_timeout_seconds: float = Field(default=5.0, gt=0)
    #: The largest message in bytes: key, value, headers and framing.
    max_message_bytes: int = Field(default=1_000_000, ge=1_000)
    #: The largest batch in bytes. The broker's limit counts batches, not messages.
    max_batch_bytes: int = Field(default=512 * 1024, ge=16 * 1024)

    #: Failures of one record, alone, that make it a dead letter.
    failures_allowed: int = Field(default=5, ge=1)
    #: How long a record of an unknown type waits for code that knows it.
    unknown_type_seconds: float = Field(default=600.0, ge=0)
    #: So many dead letters within the window stop the process: then the code is broken, not the records.
    dead_letter_limit: int = Field(default=100, ge=1)
    dead_letter_window_seconds: float = Field(default=60.0, gt=0)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.heartbeat_interval_ms >= self.session_timeout_ms:
            raise ValueError("heartbeat_interval_ms must be less than session_timeout_ms")
        # A member that is still handing over when the group stops waiting is thrown out, and its work done twice.
        if (self.drain_seconds + self.commit_timeout_seconds) * 1_000 >= self.rebalance_timeout_ms:
            raise ValueError("rebalance_timeout_ms must be more than drain_seconds and commit_timeout_seconds together")
        return self

    def topic(self, subject: str) -> str:
        """The full name of a topic of this installation, e.g. `switchboard.dead-letters.v1`."""
        return f"{self.topic_prefix}{subject}.v1"

    @property
    def dead_letter_topic(self) -> str:
        """Where dead letters go."""
        return self.topic(DEAD_LETTERS_SUBJECT)

    @property
    def retry(self) -> RetryLimits:
        """How much patience a record gets."""
        return RetryLimits(failures=self.failures_allowed, unknown_type_seconds=self.unknown_type_seconds)

    @property
    def static_member(self) -> str | None:
        """`group_instance_id`, where ordinals exist."""
        return None if self.member_ordinal is None else f"{self.client_id}-{self.member_ordinal}"

"""Settings: one frozen typed object a service, read once from the environment, every field with a unit and a sentence.

A missing or wrong setting stops the process with one line that names the variable.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "SWITCHBOARD_"
LogLevel = Literal["debug", "info", "warning", "error"]


class SettingsError(Exception):
    """A setting is missing or wrong. The text is one line that names the variable and never its value."""


class CommonSettings(BaseSettings):
    """What every service needs to know."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True)

    postgres_dsn: SecretStr = Field(description="PostgreSQL, as a `postgresql://` address with user and database.")
    kafka_bootstrap: str = Field(description="Kafka brokers, `host:port`, comma-separated.")
    topic_prefix: str = Field("switchboard.", description="What topic and group names begin with.")
    secret_keys: SecretStr = Field(
        description="Keys for secrets at rest, newest first: `id:base64 of 32 bytes`, comma-separated."
    )
    host: str = Field("127.0.0.1", description="Address the service listens on.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        0, description="Port the service listens on; 0 takes a free one."
    )
    ordinal: int | None = Field(
        None, description="This instance's number where instances have one; makes it a static group member."
    )
    pool_size: Annotated[int, Field(ge=2, le=200)] = Field(10, description="Database connections at most.")
    otlp_endpoint: str = Field(
        "", pattern="^(https?://.+)?$", description="OTLP/HTTP traces address; empty: traces are not exported."
    )
    trace_sample_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        0.01, description="Share of messages traced when nothing about them is remarkable."
    )
    log_level: LogLevel = Field("info", description="debug, info, warning or error.")


SettingsT = TypeVar("SettingsT", bound=BaseSettings)


def read_settings(kind: type[SettingsT], **overrides: Any) -> SettingsT:
    """Read settings from the environment. Raises SettingsError with one line for all that is wrong."""
    try:
        return kind(**overrides)
    except ValidationError as error:
        problems = (
            f"{PREFIX}{str(problem['loc'][0]).upper()}: {_plainly(problem['type'], problem['msg'])}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise SettingsError("; ".join(problems)) from None


def _plainly(kind: str, message: str) -> str:
    if kind == "missing":
        return "is not set"
    said = message.removeprefix("Value error, ")
    return said[:1].lower() + said[1:]

"""Settings of the simulator, from the environment (`SWITCHBOARD_…`) like those of every service."""

from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from switchboard.settings import PREFIX, LogLevel

_PortNumber = Annotated[int, Field(ge=0, le=65535)]


class SimulatorSettings(BaseSettings):
    """What the simulator needs to know. It needs no database and no broker: it is the world outside."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True)

    host: str = Field("127.0.0.1", description="Address it listens on. Whoever reaches it can do everything.")
    port: _PortNumber = Field(0, description="HTTP port: page, Bot API, receiver, control; 0 takes a free one.")
    smpp_port: _PortNumber = Field(0, description="TCP port of the SMSC; 0 takes a free one.")
    ports_file: Path | None = Field(None, description="Where to write the ports really taken, as JSON.")
    submissions_log: Path | None = Field(None, description="Append-only log of what the providers saw; unset: none.")
    callbacks_log: Path | None = Field(None, description="Append-only log of what the receiver was sent; unset: none.")
    hold_seconds: Annotated[float, Field(gt=0, le=86400)] = Field(
        300.0, description="Longest time a request is left without an answer before it is cut."
    )
    update_retry_seconds: Annotated[float, Field(gt=0, le=60)] = Field(
        1.0, description="First wait before an update the bot's webhook refused is posted again; doubles to 60."
    )
    keep_phones: Annotated[int, Field(ge=1)] = Field(2000, description="Phones remembered.")
    keep_messages: Annotated[int, Field(ge=1)] = Field(200, description="Messages remembered for each phone.")
    keep_callbacks: Annotated[int, Field(ge=1)] = Field(200, description="Callbacks remembered for each receiver.")
    log_level: LogLevel = Field("info", description="debug, info, warning or error.")

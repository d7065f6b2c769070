"""`switchboard up`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from switchboard.embedded import ServerSettings
from switchboard_standalone.fleet import BadOption, Wishes
from switchboard_standalone.greeting import greet
from switchboard_standalone.launch import Order, launch
from switchboard_standalone.screen import screen

if TYPE_CHECKING:
    from switchboard_standalone.up import Installation


def up(data: Path | None, port: int, wishes: Wishes) -> int:
    """Run everything until told to stop."""
    console = screen()

    async def stay(installation: Installation) -> int:
        greet(console, installation.home, installation.running())
        await asyncio.Event().wait()
        return 0

    return launch(Order(settings=server_settings(data), port=port, wishes=wishes), console, stay)


def server_settings(data: Path | None) -> ServerSettings:
    """The configured servers and folder; `data` wins."""
    settings = ServerSettings()
    return settings if data is None else settings.model_copy(update={"data": data})


def wishes(simulator: bool, instances: Sequence[str], environment: Sequence[str], crashes: Sequence[str]) -> Wishes:
    """Read the options. Raises BadOption."""
    more: dict[str, dict[str, str]] = {}
    for option in environment:
        name, colon, variable = option.partition(":")
        key, equals, value = variable.partition("=")
        if not (colon and equals and key):
            raise BadOption(f"--env {option}: SERVICE:NAME=VALUE is expected")
        more.setdefault(name, {})[key] = value
    first: dict[str, dict[str, str]] = {}
    for option in crashes:
        name, equals, point = option.partition("=")
        if not (equals and point):
            raise BadOption(f"--crash {option}: SERVICE=POINT is expected")
        first[name] = {"SWITCHBOARD_CRASH_AT": point}
    return Wishes(
        simulator=simulator,
        instances=dict(map(_count, instances)),
        environment=more,
        first_environment=first,
    )


def _count(option: str) -> tuple[str, int]:
    name, equals, number = option.partition("=")
    if not (equals and number.isdecimal() and 1 <= int(number) <= 20):
        raise BadOption(f"--instances {option}: SERVICE=NUMBER from 1 to 20 is expected")
    return name, int(number)

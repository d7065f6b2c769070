"""The `switchboard` command. Each command imports what it needs when it runs: `--help` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

app = typer.Typer(
    no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False, rich_markup_mode=None,
)  # fmt: skip

Data = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads it at run time
    typer.Option("--data", envvar="SWITCHBOARD_DATA", help="Folder of the installation.", show_default=False),
]
Port = Annotated[
    int, typer.Option("--port", min=0, max=65534, help="Port of the API; the next is the simulator's. 0: free ones.")
]


@app.callback()
def switchboard() -> None:
    """An open Conversation API: run it, try it, look into it."""


@app.command()
def up(
    data: Data = None,
    port: Port = 0,
    simulator: Annotated[bool, typer.Option(help="Whether the simulated world outside runs.")] = True,
    instances: Annotated[
        list[str], typer.Option(help="Processes of a service, SERVICE=NUMBER. May be given again.")
    ] = [],  # noqa: B006 - typer copies it
    env: Annotated[
        list[str], typer.Option(help="Environment of a service, SERVICE:NAME=VALUE. May be given again.")
    ] = [],  # noqa: B006
    crash: Annotated[
        list[str], typer.Option(help="For tests: SERVICE=POINT[:NUMBER] crashes it there in its first run.")
    ] = [],  # noqa: B006
) -> None:
    """Start everything on this machine and stay until Ctrl-C."""
    from switchboard_standalone.trouble import telling_trouble

    with telling_trouble():
        from switchboard_standalone.commands import up as command

        raise SystemExit(command.up(data, port, command.wishes(simulator, instances, env, crash)))


def main() -> None:
    """The console script."""
    app()

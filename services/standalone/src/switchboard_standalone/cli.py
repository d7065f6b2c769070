"""The `switchboard` command. Each command imports what it needs when it runs: `--help` is quick."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
apps = typer.Typer(no_args_is_help=True, help="Apps, and how fast they may go.")
account = typer.Typer(no_args_is_help=True, help="Provider accounts: what the operator sends through.")
number = typer.Typer(no_args_is_help=True, help="Numbers of provider accounts, and whose they are.")
lanes = typer.Typer(no_args_is_help=True, help="Waiting lines of apps, provider accounts and endpoints.")
unknowns = typer.Typer(no_args_is_help=True, help="Attempts of which nobody knows what became.")
callbacks = typer.Typer(no_args_is_help=True, help="Callbacks: what became of them, and send them again.")
endpoints = typer.Typer(no_args_is_help=True, help="Endpoints of apps: how they are.")
dead_letters = typer.Typer(no_args_is_help=True, help="Records that no handler could process.")
app.add_typer(apps, name="app")
app.add_typer(account, name="account")
app.add_typer(number, name="number")
app.add_typer(lanes, name="lanes")
app.add_typer(unknowns, name="unknowns")
app.add_typer(callbacks, name="callbacks")
app.add_typer(endpoints, name="endpoints")
app.add_typer(dead_letters, name="dead-letters")

Data = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads it at run time
    typer.Option(
        "--data",
        envvar="SWITCHBOARD_DATA",
        help="Folder of the installation; default ~/.local/state/switchboard, as root /var/lib/switchboard.",
        show_default=False,
    ),
]
Port = Annotated[
    int, typer.Option("--port", min=0, max=65534, help="Port of the API; the next is the simulator's. 0: free ones.")
]
Several = Optional[list[str]]  # noqa: UP045


@app.callback()
def switchboard() -> None:
    """An open Conversation API: run it, try it, look into it."""


@app.command()
def up(
    data: Data = None,
    port: Port = 0,
    simulator: Annotated[bool, typer.Option(help="Run the simulated world outside.")] = True,
    instances: Annotated[Several, typer.Option(help="Processes of a service: SERVICE=NUMBER. Repeatable.")] = None,
    env: Annotated[Several, typer.Option(help="Environment of a service: SERVICE:NAME=VALUE. Repeatable.")] = None,
    crash: Annotated[
        Several, typer.Option(help="For tests: SERVICE=POINT[:TIMES] dies there, in its first run. Repeatable.")
    ] = None,
) -> None:
    """Start everything on this machine and stay until Ctrl-C."""
    from switchboard_standalone.trouble import telling_trouble

    with telling_trouble():
        from switchboard_standalone.commands import up as command

        wishes = command.wishes(simulator, instances or (), env or (), crash or ())
        raise SystemExit(command.up(data, port, wishes))


@app.command()
def run(
    data: Data = None,
    port: Port = 0,
    once: Annotated[bool, typer.Option("--once", help="End after the callback, on a folder thrown away.")] = False,
) -> None:
    """Start everything, send a first message, show its phone and callbacks, and stay until Ctrl-C."""
    from switchboard_standalone.trouble import telling_trouble

    with telling_trouble():
        from switchboard_standalone.commands import first

        raise SystemExit(first.run(data, port, once=once))


@app.command()
def send(
    text: str,
    to: Annotated[str, typer.Option(help="Number or chat; without it a phone of the simulator.")] = "",
    channel: Annotated[str, typer.Option(help="SMS or TELEGRAM.")] = "SMS",
    callback_url: Annotated[str, typer.Option(help="Where this message's callbacks go instead.")] = "",
    data: Data = None,
) -> None:
    """Send a text as the development app and print the message's id."""
    _do("messages", lambda command: command.send(data, text, channel, to, callback_url))


@app.command()
def tail(data: Data = None) -> None:
    """Print timelines, phones and callbacks as they happen, until Ctrl-C."""
    _do("messages", lambda command: command.tail(data))


@app.command()
def timeline(message_id: str, data: Data = None) -> None:
    """Print the whole life of a message: when, what, why."""
    _do("messages", lambda command: command.show_timeline(data, message_id))


@app.command()
def simulate(scenario: Annotated[Path, typer.Argument(help="YAML; see docs/how-to/test-your-failover.md.")]) -> None:
    """Play a scenario on a virtual clock and print its timeline as JSON. Ends with 1 if it is not as expected."""
    _do("simulate", lambda command: command.simulate(scenario))


@app.command()
def doctor(data: Data = None) -> None:
    """Look for what is wrong, and say what to do. Ends with 1 if something is."""
    _do("doctor", lambda command: command.doctor(data))


@app.command()
def verify(
    settle_seconds: Annotated[
        float, typer.Option(help="How long what follows from a fact may take, in seconds.")
    ] = 300,
    data: Data = None,
) -> None:
    """Look for messages and callbacks that were lost, forgotten or miscounted. Ends with 1 if there are any."""
    _do("verify", lambda command: command.look(data, settle_seconds))


@app.command()
def migrate(data: Data = None) -> None:
    """Bring database and topics to this version. Safe to run by several at once."""
    _do("operate", lambda command: command.migrate(data))


Rate = Annotated[Optional[int], typer.Option(min=1, max=100_000, show_default=False)]  # noqa: UP045


@apps.command("list")
def app_list(data: Data = None) -> None:
    """Show apps with their rates."""
    _do("apps", lambda command: command.list_apps(data))


@apps.command("limits")
def app_limits(
    app_id: str, outbound: Rate = None, inbound: Rate = None, webhooks: Rate = None, data: Data = None
) -> None:
    """Set how much an app may do a second: send on each channel, take in, be called back on each webhook."""
    _do("apps", lambda command: command.set_limits(data, app_id, outbound, inbound, webhooks))


@apps.command("consent")
def app_consent(
    app_id: str,
    mode: Annotated[
        str, typer.Argument(help="off, primary (people who left are not written to) or secondary (told only).")
    ],
    words: Annotated[
        str, typer.Option(help="The app's own keywords and texts: JSON or @FILE; by default those it has.")
    ] = "",
    data: Data = None,
) -> None:
    """Set what happens when people write STOP, and to messages to those who have left."""
    _do("consent", lambda command: command.set_consent(data, app_id, mode, words))


Settings = Annotated[
    str, typer.Argument(help="JSON; @FILE reads a file, - standard input, so that secrets stay unseen.")
]


@account.command("add")
def account_add(channel: str, name: str, settings: Settings, data: Data = None) -> None:
    """Make a provider account, or change its settings."""
    _do("operate", lambda command: command.add_account(data, channel, name, settings))


@account.command("list")
def account_list(data: Data = None) -> None:
    """Show provider accounts, secrets hidden."""
    _do("operate", lambda command: command.list_accounts(data))


@account.command("remove")
def account_remove(key: str, data: Data = None) -> None:
    """Remove a provider account without numbers."""
    _do("operate", lambda command: command.remove_account(data, key))


@number.command("add")
def number_add(account_key: str, number: str, app_id: str, data: Data = None) -> None:
    """Give a number of an account to an app."""
    _do("operate", lambda command: command.add_number(data, account_key, number, app_id))


@number.command("list")
def number_list(data: Data = None) -> None:
    """Show numbers and whose they are."""
    _do("operate", lambda command: command.list_numbers(data))


@number.command("remove")
def number_remove(account_key: str, number: str, data: Data = None) -> None:
    """Take a number from its app."""
    _do("operate", lambda command: command.remove_number(data, account_key, number))


@lanes.command("list")
def lanes_list(data: Data = None) -> None:
    """Show lanes, those with most waiting first."""
    _do("operate", lambda command: command.list_lanes(data))


@lanes.command("pause")
def lanes_pause(lane: str, data: Data = None) -> None:
    """Let nothing start in a lane; what is planned waits."""
    _do("operate", lambda command: command.pause_lane(data, lane))


@lanes.command("resume")
def lanes_resume(lane: str, data: Data = None) -> None:
    """Open a paused or closed lane."""
    _do("operate", lambda command: command.resume_lane(data, lane))


@lanes.command("purge")
def lanes_purge(
    lane: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: Data = None,
) -> None:
    """End every message that waits in a lane: its app is told that it FAILED."""
    if not yes:
        typer.confirm(f"End every message that waits in {lane}?", abort=True)
    _do("operate", lambda command: command.purge_lane(data, lane))


@unknowns.command("list")
def unknowns_list(
    every: Annotated[bool, typer.Option("--all", help="Those given up too.")] = False, data: Data = None
) -> None:
    """Show attempts whose fate is unknown."""
    _do("operate", lambda command: command.list_unknowns(data, every=every))


@unknowns.command("resolve")
def unknowns_resolve(
    attempt: str,
    status: Annotated[str, typer.Argument(help="DELIVERED or FAILED.")],
    why: Annotated[str, typer.Option(help="For FAILED: how you know, without personal data.")] = "",
    data: Data = None,
) -> None:
    """Say what became of an attempt."""
    _do("operate", lambda command: command.resolve_unknown(data, attempt, status, why))


@endpoints.command("list")
def endpoints_list(app_id: str, data: Data = None) -> None:
    """Show an app's endpoints: state, lag, success rate, next try, last error."""
    _do("callbacks", lambda command: command.list_endpoints(data, app_id))


@endpoints.command("test")
def endpoints_test(webhook_id: str, data: Data = None) -> None:
    """Send a webhook a callback without a meaning."""
    _do("callbacks", lambda command: command.test(data, webhook_id))


@callbacks.command("list")
def callbacks_list(
    app_id: str,
    state: Annotated[Several, typer.Option(help="waiting, delivered, expired, ended, dismissed. Repeatable.")] = None,
    message: Annotated[str, typer.Option(help="Those of one message.")] = "",
    webhook: Annotated[str, typer.Option(help="Those of one webhook.")] = "",
    since: Annotated[Optional[datetime], typer.Option(help="What happened from here on, UTC.")] = None,  # noqa: UP045
    until: Annotated[Optional[datetime], typer.Option(help="And before.")] = None,  # noqa: UP045
    min_attempts: Annotated[int, typer.Option(min=0, help="Tried so often, or more.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    data: Data = None,
) -> None:
    """Show an app's callbacks, those of the newest messages first."""
    _do(
        "callbacks",
        lambda command: command.list_callbacks(
            data, app_id, state or [], message, webhook, _utc(since), _utc(until), min_attempts, limit
        ),
    )


@callbacks.command("show")
def callbacks_show(callback_id: str, data: Data = None) -> None:
    """Show one callback."""
    _do("callbacks", lambda command: command.show_callback(data, callback_id))


@callbacks.command("redeliver")
def callbacks_redeliver(callback_id: str, data: Data = None) -> None:
    """Send a callback again, whatever became of it."""
    _do("callbacks", lambda command: command.redeliver(data, callback_id))


@callbacks.command("dismiss")
def callbacks_dismiss(callback_id: str, data: Data = None) -> None:
    """Give up a callback that waits."""
    _do("callbacks", lambda command: command.dismiss(data, callback_id))


@callbacks.command("dismiss-waiting")
def callbacks_dismiss_waiting(
    app_id: str, webhook: Annotated[str, typer.Option(help="Of this webhook only.")] = "", data: Data = None
) -> None:
    """Give up every callback of an app that waits."""
    _do("callbacks", lambda command: command.dismiss_waiting(data, app_id, webhook))


@callbacks.command("resume")
def callbacks_resume(
    app_id: str, webhook: Annotated[str, typer.Option(help="Of this webhook only.")] = "", data: Data = None
) -> None:
    """Try for another 24 hours what expired or was ended."""
    _do("callbacks", lambda command: command.resume(data, app_id, webhook))


@callbacks.command("replay")
def callbacks_replay(
    app_id: str,
    since: Annotated[datetime, typer.Option(help="What happened from here on, UTC.")],
    until: Annotated[Optional[datetime], typer.Option(help="And before; default now.")] = None,  # noqa: UP045
    state: Annotated[Several, typer.Option(help="In these states; default all finished ones.")] = None,
    target: Annotated[str, typer.Option(help="Another URL than the webhook's.")] = "",
    rate: Annotated[float, typer.Option(help="Callbacks a second.")] = 20.0,
    data: Data = None,
) -> None:
    """Send a window of callbacks once more, marked as replayed."""
    begin = since.replace(tzinfo=UTC)
    _do("callbacks", lambda command: command.replay(data, app_id, begin, _utc(until), state or [], target, rate))


@callbacks.command("orders")
def callbacks_orders(app_id: str, data: Data = None) -> None:
    """Show how far an app's orders are."""
    _do("callbacks", lambda command: command.list_orders(data, app_id))


@callbacks.command("cancel")
def callbacks_cancel(order_id: str, data: Data = None) -> None:
    """Stop an order where it is."""
    _do("callbacks", lambda command: command.cancel(data, order_id))


@dead_letters.command("list")
def dead_letters_list(limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100, data: Data = None) -> None:
    """Show the newest dead letters, without what they hold."""
    _do("dead_letters", lambda command: command.list_dead_letters(data, limit))


@dead_letters.command("replay")
def dead_letters_replay(
    place: Annotated[str, typer.Argument(help="As the list shows it, e.g. 0:17.")], data: Data = None
) -> None:
    """Publish a dead record once more as it was."""
    _do("dead_letters", lambda command: command.replay_dead_letter(data, place))


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)


def _do(module: str, command: Callable[[Any], Coroutine[Any, Any, int]]) -> None:
    """Run one command of a module of `commands`, and exit with its code. Trouble is one line."""
    from switchboard_standalone.trouble import telling_trouble

    with telling_trouble():
        import asyncio
        from importlib import import_module

        raise SystemExit(asyncio.run(command(import_module(f"switchboard_standalone.commands.{module}"))))


def main() -> None:
    """The console script."""
    code = 0
    try:
        app()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is closed by now. A thread of the HTTP client that lets go of its last object while the
    # interpreter is taken down would abort the process.
    os._exit(code)

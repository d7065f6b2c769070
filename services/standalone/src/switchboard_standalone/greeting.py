"""What `switchboard up` prints once everything works."""

from __future__ import annotations

import json

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from switchboard_standalone.home import Home, Running

#: A phone of the simulator that behaves well.
PHONE = "46701234567"


def greet(console: Console, home: Home, running: Running, *, staying: bool = True) -> None:
    """Say what is where and, to those who stay, how to send a first message."""
    console.print("\n[bold green]Switchboard is up.[/bold green]\n")
    table = Table.grid(padding=(0, 3))
    rows = [
        ("API", running.base_url),
        ("project", running.project_id),
        ("access key", f"{running.key_id}  secret {running.key_secret}"),
        ("app", f"{running.app_id}  dispatch mode, messages kept 7 days"),
        *([("simulator", f"{running.simulator_url}  phones, callbacks, faults")] if running.simulator_url else []),
        ("Kafka", running.kafka),
        ("PostgreSQL", "its address and password are in dev.json"),
        ("data", str(home.folder)),
        ("logs", str(home.logs)),
    ]
    for name, value in rows:
        table.add_row(f"[dim]{name}[/dim]", escape(value))
    console.print(table)
    if not staying:
        return
    console.print("[dim]Callbacks may go to addresses of this machine (SWITCHBOARD_ALLOWED_NETWORKS).[/dim]")
    if running.simulator_url:
        console.print("\nSend a message:\n")
        # As it is: a line that is wrapped cannot be pasted.
        print(curl(running), flush=True)
    console.print("\n[dim]Ctrl-C stops everything; the data stays.[/dim]")


def curl(running: Running) -> str:
    """A send to paste into a shell."""
    body = json.dumps(
        {
            "app_id": running.app_id,
            "recipient": {"identified_by": {"channel_identities": [{"channel": "SMS", "identity": PHONE}]}},
            "message": {"text_message": {"text": "Hello from Switchboard"}},
        }
    )
    return (
        f"curl -u {running.key_id}:{running.key_secret} -H 'content-type: application/json' \\\n"
        f"  -d '{body}' \\\n"
        f"  {running.base_url}/v1/projects/{running.project_id}/messages:send"
    )

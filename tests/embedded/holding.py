"""A process that holds servers, for tests that end it: prints their ids, waits until its input closes.

    python holding.py FOLDER SOFTWARE [postgres] [kafka]

An error of the servers is printed as one line, with exit code 3.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path

from switchboard.embedded import EmbeddedError, EmbeddedKafka, EmbeddedPostgres


def hold(folder: Path, software: Path, names: list[str]) -> None:
    """Start what is named, say so, and stop it when told."""
    with ExitStack() as stack:
        held: dict[str, object] = {"uid": os.geteuid()}
        if "postgres" in names:
            postgres = stack.enter_context(EmbeddedPostgres(folder / "postgres", software=software, durable=False))
            held |= {"postgres": postgres.pid, "dsn": postgres.dsn}
        if "kafka" in names:
            kafka = stack.enter_context(EmbeddedKafka(folder / "kafka", software=software))
            held |= {"kafka": kafka.pid, "bootstrap": kafka.bootstrap}
        print(json.dumps(held), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    try:
        hold(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
    except EmbeddedError as error:
        print(error, file=sys.stderr)
        sys.exit(3)
    except KeyboardInterrupt:
        sys.exit(130)

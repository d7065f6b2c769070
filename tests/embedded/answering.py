"""A service for tests of the supervisor: answers `/health/ready` as the file beside it says.

    python answering.py NAME PORT FOLDER

Appends its name to FOLDER/started and FOLDER/stopped. With FOLDER/NAME.broken it ends at once with exit code 4;
while FOLDER/NAME.warming exists it is not ready.
"""

from __future__ import annotations

import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType

NAME, PORT, FOLDER = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])


class Health(BaseHTTPRequestHandler):
    """Ready unless warming."""

    def do_GET(self) -> None:
        self.send_response(503 if (FOLDER / f"{NAME}.warming").exists() else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()


def note(file: str) -> None:
    with (FOLDER / file).open("a") as lines:
        lines.write(f"{NAME}\n")


def end(_number: int, _frame: FrameType | None) -> None:
    note("stopped")
    sys.exit(0)


signal.signal(signal.SIGTERM, end)
note("started")
if (FOLDER / f"{NAME}.broken").exists():
    print("SWITCHBOARD_SECRET_KEYS: is not set")
    sys.exit(4)
ThreadingHTTPServer(("127.0.0.1", PORT), Health).serve_forever()

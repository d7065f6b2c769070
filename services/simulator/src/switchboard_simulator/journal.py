"""Append-only logs: what the providers saw and what the receiver answered.

They are the evidence the ledger of the fault tests is built from (DESIGN 11): one JSON object a line, one write a
line, nothing buffered in the process, so that a line outlives SIGTERM and SIGKILL. A line is written *before* the
answer it is about is sent.
"""

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct


class Submission(Struct, frozen=True):
    """One request that a provider saw, whatever became of it."""

    at: datetime
    #: The channel: SMS, TELEGRAM.
    channel: str
    #: Whose credentials: the system_id on SMS, the first 16 hex digits of the token's SHA-256 on TELEGRAM.
    account: str
    #: What was asked for: `submit_sm`, `sendMessage`.
    operation: str
    #: The number or chat it was for, in the channel's spelling.
    recipient: str
    text: str
    #: Whether the provider took it. A timeout after acceptance is accepted.
    accepted: bool
    #: The provider's id; "" when nothing was accepted.
    provider_id: str = ""
    #: What was answered: `200`, `400`, `none` (silence), `cut`.
    answer: str = ""
    #: What of ours the request carried to name the attempt; "" on channels that cannot carry it.
    reference: str = ""
    #: The fault that applied; "" on the ordinary path.
    fault: str = ""


class Callback(Struct, frozen=True):
    """One request that the webhook receiver saw."""

    at: datetime
    receiver: str
    method: str
    #: Names in lower case; only those that identify, sign or number a callback.
    headers: dict[str, str]
    #: The raw body as text; bytes that are no UTF-8 are replaced and `is_text` is false.
    body: str
    is_text: bool
    #: `valid`, `invalid`, `unsigned`, or `unchecked` when no secret is known.
    signature: str
    #: The status answered; None when no whole answer was given (hang, cut, drip).
    status: int | None
    behaviour: str = "answer"


class Journal:
    """One append-only file of JSON lines. With no path it keeps nothing and says yes."""

    def __init__(self, path: Path | None) -> None:
        self._descriptor: int | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            if _ends_torn(path):
                self._write(b"\n")

    def append(self, entry: Submission | Callback) -> None:
        """Write one line. Raises OSError when it cannot be kept: then nothing may be accepted."""
        if self._descriptor is not None:
            self._write(msgspec.json.encode(entry) + b"\n")

    def close(self) -> None:
        """Let go of the file. Nothing is flushed: everything is written already."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, line: bytes) -> None:
        assert self._descriptor is not None
        written = os.write(self._descriptor, line)
        if written != len(line):
            raise OSError(f"only {written} of {len(line)} bytes of a log line were written")


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a log, oldest first. A line cut short by a full disk is passed over."""
    with path.open("rb") as lines:
        for line in lines:
            try:
                yield msgspec.json.decode(line, type=dict[str, Any])
            except msgspec.DecodeError:
                continue


def _ends_torn(path: Path) -> bool:
    with path.open("rb") as file:
        size_bytes = file.seek(0, os.SEEK_END)
        if size_bytes == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"

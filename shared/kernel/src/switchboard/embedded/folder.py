"""Folders the embedded servers live in, and who may use them at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from switchboard.embedded.errors import EmbeddedError, FolderInUse, FolderUnusable

#: Room that a first start needs: both programs, an empty database and an empty log.
ROOM_BYTES = 400 * 1024 * 1024
#: How long servers of a process that died may take to be gone.
STOPPING_SECONDS = 30.0


def default_data_folder() -> Path:
    """Where data lives unless told otherwise: `/var/lib/switchboard` as root, else under the home folder."""
    if os.geteuid() == 0:
        return Path("/var/lib/switchboard")
    return Path.home() / ".local" / "state" / "switchboard"


def usable_folder(folder: Path, *, room_bytes: int = 0) -> Path:
    """Make the folder if need be and prove that we can write there. Returns it as an absolute path.

    Raises FolderUnusable when it cannot be made, entered or written, or has less than `room_bytes` free.
    """
    folder = folder.expanduser().absolute()
    with telling_folder(folder):
        _make(folder)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
        free = shutil.disk_usage(folder).free
    if free < room_bytes:
        raise _no_room(folder, room_bytes)
    return folder


def _make(folder: Path) -> None:
    """Make the folder and its parents, open to pass through whatever our umask: PostgreSQL may be nobody."""
    missing = [step for step in (folder, *folder.parents) if not step.exists()]
    for step in reversed(missing):
        step.mkdir(exist_ok=True)
        step.chmod(0o755)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


def require_traversable(folder: Path, *, user: int) -> None:
    """Check that another user can reach what lies in this folder; raises FolderUnusable."""
    for step in (folder, *folder.parents):
        facts = step.stat()
        bit = stat.S_IXUSR if facts.st_uid == user else stat.S_IXOTH
        if not facts.st_mode & bit:
            raise FolderUnusable(
                f"{folder} cannot be used: as root PostgreSQL runs as user {user}, "
                f"which may not enter {step}; choose a data folder outside it, or run `chmod o+x {step}`"
            )


@contextmanager
def telling_folder(folder: Path) -> Iterator[None]:
    """Turn an OSError about something in `folder` into one clear FolderUnusable."""
    try:
        yield
    except OSError as error:
        raise _unusable(folder, error) from error
    except shutil.Error as error:  # copytree collects the errors of all files
        raise FolderUnusable(
            f"{folder} cannot be used: copying into it failed; check its disk and its permissions"
        ) from error


class FolderLock:
    """The right to use a folder, held by us and by the children that inherit it.

    It ends with the last of them: a folder whose servers still stop after our death is still taken.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        self._folder = folder
        self._descriptor: int | None = None

    @property
    def descriptor(self) -> int:
        """What children inherit to hold the lock with us."""
        if self._descriptor is None:
            raise RuntimeError(f"{self._folder} is not locked")
        return self._descriptor

    def acquire(self) -> None:
        """Take the folder, after servers that a dead process left stopping, or raise FolderInUse."""
        with telling_folder(self._folder):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + STOPPING_SECONDS
        while not _try_lock(descriptor):
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            if _is_alive(holder) or time.monotonic() > deadline:
                os.close(descriptor)
                raise FolderInUse(
                    f"{self._folder} is in use by process {holder or 'unknown'} or what it left running; "
                    "stop it, or choose another data folder"
                )
            time.sleep(0.02)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give our share of the folder back; children that run keep theirs."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(pid: str) -> bool:
    """Whether the process that wrote its id runs. One that has not written it yet does."""
    if not pid.isdigit():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def taking_turns(folder: Path) -> Iterator[None]:
    """Let one process at a time work in a folder; the others wait."""
    with telling_folder(folder):
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _unusable(folder: Path, error: OSError) -> EmbeddedError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _no_room(folder, ROOM_BYTES)
    reason = (error.strerror or "unknown error").lower()
    return FolderUnusable(
        f"{folder} cannot be used: {reason}; choose a data folder that you can write, with --data or SWITCHBOARD_DATA"
    )


def _no_room(folder: Path, room_bytes: int) -> FolderUnusable:
    return FolderUnusable(
        f"{folder} has no room: free at least {room_bytes // 1024 // 1024} MB there, "
        "or choose a data folder on another disk with --data or SWITCHBOARD_DATA"
    )

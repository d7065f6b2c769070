"""A child process: started, stopped, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from switchboard.embedded import ChildProcess
from switchboard.embedded.launch import __file__ as launcher
from switchboard.testing import wait_until
from switchboard.testing.process import is_gone

#: Another user where we may become one, else ourselves.
OTHER_USER = 65534 if os.geteuid() == 0 else None

SAYS_READY = "echo ready; exec sleep 600"
#: Ignores being asked to end.
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 600 & wait; done"
WITH_GRANDCHILD = "sleep 600 & echo $!; wait"

Shell = Callable[..., ChildProcess]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """Describe a child that runs a line of shell."""
    children: list[ChildProcess] = []

    def describe(line: str, **options: object) -> ChildProcess:
        options = {"log": tmp_path / "child.log", **options}
        children.append(ChildProcess("child", ["/bin/sh", "-c", line], **options))  # type: ignore[arg-type]
        return children[-1]

    yield describe
    for child in children:
        child.kill()


async def said(child: ChildProcess) -> list[str]:
    """Wait for the child's first words."""
    return await wait_until(child.log_tail, describe="the child says something")


async def test_a_child_writes_to_its_log_and_ends_when_asked(shell: Shell) -> None:
    child = shell(SAYS_READY)
    child.start()
    assert await said(child) == ["ready"]
    assert child.running

    assert child.stop() == -signal.SIGTERM
    assert child.pid is None


async def test_the_log_of_the_run_before_is_kept(shell: Shell) -> None:
    child = shell("echo $$")
    child.start()
    child.wait(10)
    first = child.log.read_text()
    child.start()
    child.wait(10)

    assert child.log.with_name("child.log.previous").read_text() == first
    assert child.log.read_text() != first


async def test_the_log_is_for_its_owner_alone(shell: Shell) -> None:
    child = shell("echo secret")
    child.start()
    child.wait(10)

    assert child.log.stat().st_mode & 0o777 == 0o600


async def test_a_child_that_does_not_listen_is_killed_after_its_grace(shell: Shell) -> None:
    child = shell(STUBBORN, grace_seconds=0.05)
    child.start()
    await said(child)

    assert child.stop() == -signal.SIGKILL


async def test_what_the_child_started_is_gone_with_it(shell: Shell) -> None:
    child = shell(WITH_GRANDCHILD, grace_seconds=0.05)
    child.start()
    [grandchild] = await said(child)

    child.stop()

    await wait_until(lambda: is_gone(int(grandchild)), describe="the grandchild is gone")


async def test_stopping_twice_or_before_the_start_is_nothing(shell: Shell) -> None:
    child = shell(SAYS_READY)
    assert child.stop() is None
    child.start()

    assert child.stop() == child.stop()


async def test_a_child_that_ends_by_itself_is_told_without_blocking(shell: Shell) -> None:
    child = shell("exit 7")
    child.start()

    assert await child.ended() == 7
    assert child.returncode == 7


async def test_a_program_that_cannot_be_run_says_so_in_the_log(tmp_path: Path) -> None:
    child = ChildProcess("child", [str(tmp_path / "absent")], log=tmp_path / "child.log")
    child.start()

    assert child.wait(10) == 1
    assert child.log_tail() == [f"{tmp_path / 'absent'} cannot be run: No such file or directory"]


async def test_a_child_is_only_started_from_the_main_thread(shell: Shell) -> None:
    refused: list[str] = []

    def start() -> None:
        try:
            shell(SAYS_READY).start()
        except RuntimeError as error:
            refused.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()

    assert refused == ["child must be started from the main thread"]


PARENT = """
import sys
from pathlib import Path
from switchboard.embedded import ChildProcess
child = ChildProcess("child", ["/bin/sh", "-c", "exec sleep 600"], log=Path(sys.argv[1]), user=eval(sys.argv[2]))
child.start()
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=[None, OTHER_USER], ids=["same user", "other user"])
def parent(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A process with a child, whose id it prints."""
    command = [sys.executable, "-c", PARENT, str(tmp_path / "child.log"), repr(request.param)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


async def test_a_child_dies_with_a_parent_that_was_killed(parent: subprocess.Popen[str]) -> None:
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    # Only the program is tied for sure: before, the launcher itself looks at who its parent is.
    await wait_until(lambda: "sleep" in command_of(pid), describe="the child is the program")

    parent.kill()

    await wait_until(lambda: is_gone(pid), describe="the child is gone")


def test_a_child_whose_parent_died_before_it_was_tied_does_not_run() -> None:
    absent = 2**22  # above the highest process id
    run = subprocess.run(
        [sys.executable, "-I", "-S", launcher, str(absent), "9", "-", "/bin/echo", "ran"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.stdout == ""
    assert "the parent is gone" in run.stderr


def command_of(pid: int) -> str:
    """The command line of a process, or nothing when it is gone."""
    run = subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return run.stdout

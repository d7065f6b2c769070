"""`switchboard callbacks` and `switchboard endpoints` on a running installation."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.flow.installed import Installed, new_number

from switchboard.ids import mint
from switchboard.testing import wait_until
from switchboard_standalone.commands import callbacks, messages
from switchboard_standalone.trouble import Refused


@pytest.fixture
def folder(installation: Installed, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("SWITCHBOARD_")]:
        monkeypatch.delenv(name)
    return installation.home.folder


async def test_a_delivered_callback_is_found_shown_and_sent_again(
    installation: Installed, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app_id = installation.running.app_id
    await messages.send(folder, "Tide at nine", "SMS", new_number(), "")
    message_id = capsys.readouterr().out.strip()
    await wait_until(lambda: len(installation.callbacks(message_id)) == 3, 20, "all were called back")

    await callbacks.list_callbacks(folder, app_id, ["Delivered"], message_id, min_attempts=1, limit=10)
    listed = re.findall(r"^([0-9A-Z]{26}) ", capsys.readouterr().out, re.MULTILINE)
    await callbacks.show_callback(folder, listed[0])
    shown = capsys.readouterr().out
    await callbacks.redeliver(folder, listed[0])
    order_id = capsys.readouterr().out.split()[1]

    async def is_finished() -> bool:
        await callbacks.list_orders(folder, app_id)
        return f"{order_id}  replay  finished" in capsys.readouterr().out

    await wait_until(is_finished, 20)
    assert len(listed) == 3
    assert "Tide at nine" not in shown
    assert len(installation.callbacks(message_id)) == 4
    await callbacks.list_endpoints(folder, app_id)
    assert "working" in capsys.readouterr().out


async def test_callbacks_are_listed_by_webhook_and_time(
    installation: Installed, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running = installation.running
    await messages.send(folder, "Tide at ten", "SMS", new_number(), "")
    message_id = capsys.readouterr().out.strip()
    await wait_until(lambda: len(installation.callbacks(message_id)) == 3, 20, "all were called back")
    now = datetime.now(UTC)
    hour = timedelta(hours=1)

    async def listed(webhook_id: str, since: datetime, until: datetime) -> int:
        await callbacks.list_callbacks(folder, running.app_id, [], message_id, webhook_id, since, until)
        return capsys.readouterr().out.count(message_id)

    assert await listed(running.webhook_id, now - hour, now + hour) == 3
    assert await listed("another", now - hour, now + hour) == 0
    assert await listed(running.webhook_id, now - 2 * hour, now - hour) == 0
    assert await listed(running.webhook_id, now + hour, now + 2 * hour) == 0


async def test_orders_are_placed_and_cancelled(
    installation: Installed, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app_id = installation.running.app_id
    begin = datetime.now(UTC) - timedelta(days=400)

    await callbacks.resume(folder, app_id, "")
    await callbacks.dismiss_waiting(folder, app_id, "nobody's")
    await callbacks.replay(folder, app_id, begin, begin + timedelta(hours=1), [], "", 5)
    placed = re.findall(r"order ([0-9A-Z]{26}) is placed", capsys.readouterr().out)

    assert len(placed) == 3
    assert await callbacks.cancel(folder, placed[2]) == 0


async def test_what_cannot_be_is_refused_by_name(installation: Installed, folder: Path) -> None:
    app_id = installation.running.app_id

    for wrong, named in (
        (callbacks.show_callback(folder, "nonsense"), "nonsense"),
        (callbacks.redeliver(folder, mint()), "there is no callback"),
        (callbacks.list_endpoints(folder, "nobody"), "there is no app nobody"),
        (callbacks.list_callbacks(folder, app_id, ["lost"]), "--state"),
        (callbacks.test(folder, "none"), "there is no webhook none"),
        (callbacks.cancel(folder, mint()), "there is no order"),
    ):
        with pytest.raises(Refused, match=named):
            await wrong

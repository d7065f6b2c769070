"""The simulated world: its phones, providers and receivers, put together in one place."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Final

from switchboard_simulator.faults import FaultBook
from switchboard_simulator.feed import CallbackReceived, Feed, Missed, PhoneChanged
from switchboard_simulator.journal import Journal
from switchboard_simulator.phones import Phone, PhoneMessage, Phones, now
from switchboard_simulator.receiver.endpoint import ReceiverEndpoint
from switchboard_simulator.receiver.record import ReceivedCallback
from switchboard_simulator.receiver.store import Receivers
from switchboard_simulator.settings import SimulatorSettings
from switchboard_simulator.smsc.centre import Smsc, SmscSettings
from switchboard_simulator.smsc.magic import MAGIC as MAGIC_NUMBERS
from switchboard_simulator.smsc.screen import CHANNEL as SMS
from switchboard_simulator.telegram.bots import Bots
from switchboard_simulator.telegram.endpoint import BotApi
from switchboard_simulator.telegram.files import Files, StoredFile
from switchboard_simulator.telegram.magic import MAGIC as MAGIC_CHATS
from switchboard_simulator.telegram.magic import MagicChats
from switchboard_simulator.telegram.people import CHANNEL as TELEGRAM
from switchboard_simulator.telegram.people import People
from switchboard_simulator.telegram.updates import UpdatePoster


class World:
    """Everything there is, and how it hangs together. Nothing runs before `start`."""

    channels: Final = (SMS, TELEGRAM)

    def __init__(self, settings: SimulatorSettings, clock: Callable[[], datetime] = now) -> None:
        self.stopping = asyncio.Event()
        self.submissions = Journal(settings.submissions_log)
        self.callbacks = Journal(settings.callbacks_log)
        self.phones = Phones(phones=settings.keep_phones, messages=settings.keep_messages)
        self.faults = FaultBook()
        self.feed = Feed()
        self.receivers = Receivers(keep=settings.keep_callbacks)
        self.bots = Bots(clock())
        self.files = Files()
        self.magic = MagicChats()
        self.poster = UpdatePoster(self.bots, clock, back_off_seconds=settings.update_retry_seconds)
        self.people = People(self.phones, self.bots, self.files, self.magic, media_path, clock)
        self.bot_api = BotApi(
            bots=self.bots, people=self.people, files=self.files, faults=self.faults, magic=self.magic,
            poster=self.poster, journal=self.submissions, clock=clock, stopping=self.stopping,
            hold_seconds=settings.hold_seconds,
        )  # fmt: skip
        self.smsc = Smsc(
            SmscSettings(host=settings.host, port=settings.smpp_port),
            self.phones, self.submissions, faults=self.faults, clock=clock,
        )  # fmt: skip
        self.receiver = ReceiverEndpoint(
            self.receivers, self.callbacks, self._on_callback, clock, self.stopping, settings.hold_seconds
        )
        self.phones.observe(self._on_phone)
        #: The ports really taken, once it listens: `http` and `smpp`.
        self.ports: dict[str, int] = {}

    async def start(self) -> None:
        """Open what is not HTTP. Raises OSError when a port is taken."""
        self.ports["smpp"] = await self.smsc.start()

    def begin_stop(self) -> None:
        """Let go of every request that hangs and every watcher, so that the server can end."""
        self.stopping.set()
        self.feed.close()

    async def stop(self) -> None:
        """Close everything. Every log line is written already."""
        self.begin_stop()
        await self.smsc.stop()
        await self.poster.stop()
        self.submissions.close()
        self.callbacks.close()

    def magic_recipients(self) -> list[dict[str, str]]:
        """Every magic ending of every channel: `channel`, `ending`, `does`."""
        return [
            *({"channel": SMS, "ending": magic.ending, "does": magic.does} for magic in MAGIC_NUMBERS),
            *({"channel": TELEGRAM, "ending": magic.ending, "does": magic.does} for magic in MAGIC_CHATS),
        ]

    def reset(self) -> None:
        """Forget phones, faults, files and receivers. Bots, their webhooks, binds and the logs stay."""
        self.phones.clear()
        self.faults.clear()
        self.files.clear()
        self.magic.clear()
        self.smsc.reset()
        self.receivers.clear()
        self.feed.publish(Missed())

    def _on_phone(self, phone: Phone, message: PhoneMessage) -> None:
        if self.feed.is_watched:
            self.feed.publish(PhoneChanged(phone, message))

    def _on_callback(self, callback: ReceivedCallback) -> None:
        if self.feed.is_watched:
            self.feed.publish(CallbackReceived(callback))


def media_path(file: StoredFile) -> str:
    """Where the page shows a stored file."""
    return f"/media/{file.file_id}/{file.name}"

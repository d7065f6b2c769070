"""What people see: parts become messages on their phones."""

from collections import OrderedDict
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from switchboard_channels.sms.concat import Assembly, Concatenation, UserData, with_part
from switchboard_channels.sms.encoding import DefaultAlphabet, decode
from switchboard_simulator.phones import PhoneMessage, Phones

CHANNEL = "SMS"


class Coming(Struct, frozen=True):
    """A part on its way to a phone."""

    recipient: str
    sender: str
    data_coding: int
    data: UserData
    provider_id: str


class _Half(Struct, frozen=True):
    assembly: Assembly
    provider_ids: tuple[str, ...]


class Screen:
    """Puts parts together per phone. Bounded: the oldest unfinished message is forgotten first."""

    def __init__(self, phones: Phones, alphabet: DefaultAlphabet, limit: int = 1_000) -> None:
        self._phones = phones
        self._alphabet = alphabet
        self._limit = limit
        self._halves: OrderedDict[tuple[str, str, Concatenation], _Half] = OrderedDict()

    def show(self, coming: Coming, now: datetime) -> None:
        """A part reached its phone; the message shows once all have."""
        part = coming.data.part
        if part is None:
            self._add(coming, coming.data.octets, (coming.provider_id,), now)
            return
        key = (coming.recipient, coming.sender, replace(part, number=0))
        half = self._halves.get(key)
        assembly = with_part(half.assembly if half else None, part, coming.data.octets, now)
        ids = (*(half.provider_ids if half else ()), coming.provider_id)
        if assembly.is_whole:
            self._halves.pop(key, None)
            self._add(coming, assembly.octets, ids, now)
            return
        self._halves[key] = _Half(assembly, ids)
        if len(self._halves) > self._limit:
            self._halves.popitem(last=False)

    def wrote(self, sender: str, to: str, text: str, message_id: str, now: datetime) -> None:
        """A person wrote."""
        self._phones.add(CHANNEL, sender, PhoneMessage(id=message_id, incoming=False, at=now, peer=to, text=text))

    def report(self, recipient: str, provider_id: str, stat: str) -> None:
        """Note on the phone what the SMSC reported of a message that is there."""
        phone = self._phones.get(CHANNEL, recipient)
        for message in phone.messages if phone else ():
            if provider_id in message.provider_ids:
                state = "delivered" if stat == "DELIVRD" else stat.lower()
                self._phones.change(CHANNEL, recipient, replace(message, state=state))
                return

    def clear(self) -> None:
        """Forget unfinished messages."""
        self._halves.clear()

    def _add(self, coming: Coming, octets: bytes, ids: tuple[str, ...], now: datetime) -> None:
        text = decode(coming.data_coding, octets, self._alphabet)
        self._phones.add(
            CHANNEL,
            coming.recipient,
            PhoneMessage(
                id=ids[0],
                incoming=True,
                at=now,
                peer=coming.sender,
                text=octets.hex() if text is None else text,
                state="held",
                provider_ids=ids,
            ),
        )

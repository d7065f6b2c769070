"""The JSON objects of the Bot API: messages, chats, users (channel-providers 8)."""

from collections.abc import Callable, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any

from switchboard_simulator.body import Upload
from switchboard_simulator.phones import Media
from switchboard_simulator.telegram.files import Files, StoredFile
from switchboard_simulator.telegram.methods import Attachment, Outgoing

#: Says where a stored file can be looked at.
Link = Callable[[StoredFile], str]


def chat_object(chat_id: int) -> dict[str, Any]:
    """A private chat for a positive id, a group for a negative one."""
    if chat_id > 0:
        return {"id": chat_id, "first_name": f"Person {chat_id % 10000:04}", "type": "private"}
    return {"id": chat_id, "title": f"Group {-chat_id % 10000:04}", "type": "supergroup"}


def user_object(user_id: int) -> dict[str, Any]:
    """The person behind a private chat."""
    return {
        "id": abs(user_id),
        "is_bot": False,
        "first_name": f"Person {abs(user_id) % 10000:04}",
        "language_code": "en",
    }


def message_object(
    outgoing: Outgoing, sender: dict[str, Any], message_id: int, at: datetime,
    attachment: tuple[Attachment, str] | None,
) -> dict[str, Any]:  # fmt: skip
    """The message as the answer tells it; `attachment` is what it carries and the id that got."""
    message: dict[str, Any] = {
        "message_id": message_id,
        "from": sender,
        "chat": chat_object(outgoing.chat_id),
        "date": int(at.timestamp()),
    }
    if attachment is not None:
        item, file_id = attachment
        message |= media_object(item.kind, file_id)
        caption = item.caption or outgoing.text
        if caption:
            message["caption"] = caption
    elif outgoing.text:
        message["text"] = outgoing.text
    if outgoing.location is not None:
        latitude, longitude = outgoing.location
        place = {"latitude": latitude, "longitude": longitude}
        message["location"] = place
        if outgoing.venue is not None:
            title, address = outgoing.venue
            message["venue"] = {"location": place, "title": title, "address": address}
    if outgoing.contact is not None:
        first, last, number = outgoing.contact
        message["contact"] = {"phone_number": number, "first_name": first} | ({"last_name": last} if last else {})
    if outgoing.markup is not None:
        message["reply_markup"] = outgoing.markup
    return message


def media_object(kind: str, file_id: str, *, name: str = "", content_type: str = "", size: int = 0) -> dict[str, Any]:
    """The field that carries a file of one kind."""
    file: dict[str, Any] = {"file_id": file_id, "file_unique_id": file_id[-12:]}
    if size:
        file["file_size"] = size
    match kind:
        case "photo":
            small = {**file, "width": 90, "height": 60}
            return {"photo": [small, {**file, "width": 900, "height": 600}]}
        case "video" | "animation" | "sticker":
            return {kind: {**file, "width": 640, "height": 360, "duration": 1} | _typed(name, content_type)}
        case "audio" | "voice":
            return {kind: {**file, "duration": 1} | _typed(name, content_type)}
        case _:
            return {kind: file | _typed(name, content_type)}


def stored(attachments: Sequence[Attachment], files: Files, link: Link) -> list[tuple[Attachment, str, Media]]:
    """Keep what was uploaded. Each attachment with its file id and what the phone shows of it."""
    kept = []
    for item in attachments:
        if isinstance(item.source, Upload):
            file = files.add(item.source.name, item.source.content_type, item.source.content)
            kept.append((item, file.file_id, Media(item.kind, link(file), file.name)))
            continue
        known = files.get(item.source)
        url = item.source if known is None else link(known)
        file_id = (
            item.source if "://" not in item.source else f"U{blake2b(item.source.encode(), digest_size=12).hexdigest()}"
        )
        kept.append((item, file_id, Media(item.kind, url, known.name if known else "")))
    return kept


def _typed(name: str, content_type: str) -> dict[str, Any]:
    named = {"file_name": name} if name else {}
    return named | ({"mime_type": content_type} if content_type else {})

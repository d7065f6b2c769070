"""What operators do about consent: switch it on for an app, and say its words (conversation-api 14)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from switchboard.ids import AppId
from switchboard.rules.consent import ConsentMode, ConsentSettings, Wish
from switchboard_standalone.reach import Reach, home_of
from switchboard_standalone.trouble import Refused

_LONGEST_WORD: Final = 40
_LONGEST_TEXT: Final = 600


async def set_consent(data: Path | None, app_id: str, mode: str, words: str) -> int:
    """Set an app's consent management. Without words, those it has stay."""
    async with Reach.of(home_of(data)).store() as store:
        app = await store.app(AppId(app_id))
        if app is None:
            raise Refused(f"there is no app {app_id}; see `switchboard app list`")
        given = read_words(words) if words else app.consent
        settings = replace(given, mode=_mode(mode))
        await store.set_consent(app.id, settings)
    print(f"app {app_id}: consent {settings.mode}, {len(settings.keywords)} own words, {len(settings.texts)} own texts")
    return 0


def read_words(words: str) -> ConsentSettings:
    """The words of JSON or of `@FILE`: `keywords` and `texts`. Raises Refused, naming the field."""
    raw = words.encode()
    if words.startswith("@"):
        try:
            raw = Path(words[1:]).read_bytes()
        except OSError as error:
            raise Refused(f"{words[1:]} cannot be read: {error.strerror}") from None
    try:
        settings = msgspec.json.decode(raw, type=ConsentSettings)
    except msgspec.DecodeError as error:
        raise Refused(f"the words are not what is expected: {error}") from None
    for keyword in settings.keywords:
        if not keyword.word.strip() or len(keyword.word) > _LONGEST_WORD:
            raise Refused(f"keywords: a word of 1 to {_LONGEST_WORD} characters is expected")
    for key, text in settings.texts.items():
        wish, _, language = key.partition(":")
        if wish not in set(Wish) or not language:
            raise Refused(f"texts: {key!r} is not a wish and a language, like OPT_OUT:en")
        if len(text) > _LONGEST_TEXT:
            raise Refused(f"texts: {key} has more than {_LONGEST_TEXT} characters")
    return settings


def _mode(text: str) -> ConsentMode:
    try:
        return ConsentMode(text.upper())
    except ValueError:
        raise Refused(f"the mode is one of {', '.join(ConsentMode).lower()}") from None

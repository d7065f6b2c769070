"""Who may be written to: lists of people who left, the words they leave and come back with (conversation-api 14). Pure.

An app has no consent management unless its operator switches it on. In the primary mode a message to somebody who
left is not sent; in the secondary mode the app is told and decides itself.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct


class ConsentMode(StrEnum):
    """What the service does with consent."""

    OFF = "OFF"
    #: Messages to people who left are not sent.
    PRIMARY = "PRIMARY"
    #: Only told: OPT_IN and OPT_OUT callbacks.
    SECONDARY = "SECONDARY"


class ConsentList(StrEnum):
    """What a person left."""

    OPT_OUT_ALL = "OPT_OUT_ALL"
    OPT_OUT_MARKETING = "OPT_OUT_MARKETING"
    OPT_OUT_NOTIFICATION = "OPT_OUT_NOTIFICATION"


class ContentType(StrEnum):
    """What kind of message a send says it is (`message_content_type`)."""

    CONTENT_UNKNOWN = "CONTENT_UNKNOWN"
    CONTENT_MARKETING = "CONTENT_MARKETING"
    CONTENT_NOTIFICATION = "CONTENT_NOTIFICATION"


class Wish(StrEnum):
    """What a keyword asks for."""

    OPT_OUT = "OPT_OUT"
    OPT_IN = "OPT_IN"
    #: Wants to know who writes and how to leave. Changes nothing.
    HELP = "HELP"


class Keyword(Struct, frozen=True, omit_defaults=True):
    """A word that a person can answer with."""

    word: str
    wish: Wish
    #: The language of its confirmation: en, es or pt.
    language: str = "en"


class ConsentSettings(Struct, frozen=True, omit_defaults=True):
    """Consent management of one app, given by its operator."""

    mode: ConsentMode = ConsentMode.OFF
    #: The app's own words, besides the built-in ones; they win over them.
    keywords: tuple[Keyword, ...] = ()
    #: The app's own confirmations by `<wish>:<language>`, e.g. "OPT_OUT:en". An empty text: none is sent.
    texts: dict[str, str] = {}

    @property
    def is_on(self) -> bool:
        return self.mode is not ConsentMode.OFF

    @property
    def blocks(self) -> bool:
        """Whether messages to people who left are stopped."""
        return self.mode is ConsentMode.PRIMARY


class Request(Struct, frozen=True):
    """What a person's message asks for."""

    wish: Wish
    list_type: ConsentList
    language: str


def _words(wish: Wish, language: str, *words: str) -> tuple[Keyword, ...]:
    return tuple(Keyword(word, wish, language) for word in words)


#: The words of conversation-api 14, and those that carriers' rules know besides (ADR 0020).
KEYWORDS: Final = (
    *_words(Wish.OPT_OUT, "en", "STOP", "UNSUBSCRIBE", "OPTOUT_ALL_EN", "STOPALL", "CANCEL", "END", "QUIT"),
    *_words(Wish.OPT_IN, "en", "START", "SUBSCRIBE", "OPTIN_ALL_EN"),
    *_words(Wish.HELP, "en", "HELP"),
    *_words(Wish.OPT_OUT, "es", "DETENER", "SALIR"),
    *_words(Wish.OPT_IN, "es", "VOLVER", "RECIBIR"),
    *_words(Wish.HELP, "es", "AYUDA"),
    *_words(Wish.OPT_OUT, "pt", "PARAR", "CANCELAR"),
    *_words(Wish.OPT_IN, "pt", "VOLTAR", "RECEBER"),
    *_words(Wish.HELP, "pt", "AJUDA"),
)

#: What is answered where the app has no text of its own.
TEXTS: Final[Mapping[tuple[Wish, str], str]] = {
    (Wish.OPT_OUT, "en"): "You will get no more of these messages. Reply START to get them again.",
    (Wish.OPT_IN, "en"): "You will get these messages again. Reply STOP to end them.",
    (Wish.HELP, "en"): "Reply STOP to get no more messages, START to get them again.",
    (Wish.OPT_OUT, "es"): "No recibirá más estos mensajes. Responda VOLVER para recibirlos de nuevo.",
    (Wish.OPT_IN, "es"): "Volverá a recibir estos mensajes. Responda SALIR para no recibirlos.",
    (Wish.HELP, "es"): "Responda SALIR para no recibir más mensajes, VOLVER para recibirlos de nuevo.",
    (Wish.OPT_OUT, "pt"): "Você não receberá mais estas mensagens. Responda VOLTAR para recebê-las de novo.",
    (Wish.OPT_IN, "pt"): "Você voltará a receber estas mensagens. Responda PARAR para não recebê-las.",
    (Wish.HELP, "pt"): "Responda PARAR para não receber mais mensagens, VOLTAR para recebê-las de novo.",
}

_LISTS: Final = {
    "MARKETING": ConsentList.OPT_OUT_MARKETING,
    "NOTIFICATION": ConsentList.OPT_OUT_NOTIFICATION,
}
_BUILT_IN: Final = {keyword.word: keyword for keyword in KEYWORDS}
_BLOCKING: Final[Mapping[ContentType, frozenset[ConsentList]]] = {
    ContentType.CONTENT_UNKNOWN: frozenset({ConsentList.OPT_OUT_ALL}),
    ContentType.CONTENT_MARKETING: frozenset({ConsentList.OPT_OUT_ALL, ConsentList.OPT_OUT_MARKETING}),
    ContentType.CONTENT_NOTIFICATION: frozenset({ConsentList.OPT_OUT_ALL, ConsentList.OPT_OUT_NOTIFICATION}),
}


def read_request(text: str, settings: ConsentSettings) -> Request | None:
    """What a text asks for. None for every text that is not exactly one keyword, trimmed, in any case.

    A keyword followed by MARKETING or NOTIFICATION is about that list, else about all messages.
    """
    word, _, rest = " ".join(text.split()).upper().partition(" ")
    own = {keyword.word.upper(): keyword for keyword in settings.keywords}
    keyword = own.get(f"{word} {rest}".strip())
    if keyword is not None:
        return Request(keyword.wish, ConsentList.OPT_OUT_ALL, keyword.language)
    keyword = own.get(word) or _BUILT_IN.get(word)
    if keyword is None or (rest and rest not in _LISTS):
        return None
    return Request(keyword.wish, _LISTS.get(rest, ConsentList.OPT_OUT_ALL), keyword.language)


def confirmation(request: Request, settings: ConsentSettings) -> str:
    """What to answer a request with; "" for nothing."""
    key = f"{request.wish}:{request.language}"
    if key in settings.texts:
        return settings.texts[key]
    return TEXTS.get((request.wish, request.language), TEXTS[request.wish, "en"])


def is_blocked(content_type: ContentType, lists: Collection[ConsentList]) -> bool:
    """Whether a message of this kind may not go to somebody who is on these lists."""
    return not _BLOCKING[content_type].isdisjoint(lists)

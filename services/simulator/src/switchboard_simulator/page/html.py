"""Renders the page: phones on one side, callbacks on the other. Every text from outside is escaped here."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from urllib.parse import quote

import msgspec

from switchboard_simulator.faults import FaultKind
from switchboard_simulator.phones import Button, Media, Phone, PhoneMessage
from switchboard_simulator.receiver.record import ReceivedCallback, Verdict
from switchboard_simulator.receiver.store import ReceiverSummary

_CHANNEL_TITLES = {"SMS": "SMS", "TELEGRAM": "Telegram"}
_TRIGGER_TITLES = {
    "message_delivery_report": "Delivery report",
    "message_submit_notification": "Submitted",
    "message": "Inbound message",
    "event_delivery_report": "Event delivery report",
    "event": "Inbound event",
    "opt_in_notification": "Opt-in",
    "opt_out_notification": "Opt-out",
    "capability_notification": "Capability",
    "unsupported_callback": "Unsupported",
}
_VERDICTS = {
    Verdict.VALID: "signature valid",
    Verdict.INVALID: "signature wrong",
    Verdict.UNSIGNED: "not signed",
    Verdict.UNCHECKED: "not checked",
}
_MOST_CALLBACK_JSON = 20_000


def page(
    phones: Sequence[Phone],
    callbacks: Sequence[ReceivedCallback],
    receivers: Sequence[ReceiverSummary],
    magic: Iterable[Mapping[str, str]],
    channels: Sequence[str],
) -> str:
    """The whole page as it is now; changes come over `/live`."""
    options = "".join(f'<option value="{escape(name)}">{escape(_title(name))}</option>' for name in channels)
    kinds = "".join(f'<option value="{kind}">{kind.replace("_", " ")}</option>' for kind in FaultKind)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Switchboard simulator</title>
<link rel="stylesheet" href="/static/page.css">
<link rel="icon" href="data:,">
<script src="/static/page.js" defer></script>
</head>
<body>
<header class="top">
  <h1><svg viewBox="0 0 24 24" width="26" height="26" aria-hidden="true"><path d="M4 7h9m3 0h4M4 17h4m3 0h9"/>
    <circle cx="14.5" cy="7" r="2"/><circle cx="9.5" cy="17" r="2"/></svg>Switchboard <span>simulator</span></h1>
  <p class="lede">The world outside: phones your messages reach, and the webhook their callbacks go to.</p>
  <p class="live" id="live" role="status" data-state="connecting">connecting</p>
</header>
<main>
<section class="phones" aria-labelledby="phones-title">
  <div class="bar"><h2 id="phones-title">Phones</h2>
    <details class="tool"><summary>Write first</summary>
      <form id="first" class="panel"><p>Let a person write to you before you ever wrote to them.</p>
        <label>Channel <select name="channel">{options}</select></label>
        <label>From <input name="from" required inputmode="tel" placeholder="46701234567"></label>
        <label>To <input name="to" placeholder="your number, or the bot"></label>
        <label>Text <input name="text" required></label>
        <button class="primary">Send</button></form></details>
    <details class="tool"><summary>Faults</summary>
      <form id="fault" class="panel"><p>Make a provider misbehave for the next messages.</p>
        <label>Channel <select name="channel">{options}</select></label>
        <label>Recipient <input name="recipient" value="*" required></label>
        <label>What happens <select name="kind">{kinds}</select></label>
        <label>How often <input name="count" type="number" min="1" value="1" required></label>
        <button class="primary">Put in force</button>
        <output id="fault-said"></output></form></details>
    <details class="tool"><summary>Magic recipients</summary>
      <div class="panel wide"><p>A recipient that ends in these digits always behaves so.</p>
        {_magic(magic)}</div></details>
  </div>
  <p class="empty" id="no-phones"{" hidden" if phones else ""}>No phone has been written to yet.
    Send a message with <code>switchboard send</code> or the API, and it appears here.</p>
  <div class="grid" id="phones">{"".join(phone_card(phone) for phone in phones)}</div>
</section>
<section class="callbacks" aria-labelledby="callbacks-title">
  <div class="bar"><h2 id="callbacks-title">Callbacks</h2>
    <button type="button" class="quiet" id="clear">Clear</button></div>
  <div id="receivers" class="receivers">{"".join(receiver_row(receiver) for receiver in receivers)}</div>
  <p class="empty" id="no-callbacks"{" hidden" if callbacks else ""}>Nothing has been received.
    Point a webhook at <code>/receiver/any-name</code> on this address.</p>
  <ol class="list" id="callbacks" aria-live="polite">{"".join(callback_row(each) for each in callbacks)}</ol>
</section>
</main>
<footer>Everything here is also at <code>/control/…</code>; see docs/reference/simulator.md.</footer>
</body>
</html>
"""


def phone_id(phone: Phone) -> str:
    """The phone's element."""
    return f"phone-{phone.channel}-{quote(phone.recipient, safe='')}"


def message_id(phone: Phone, message: PhoneMessage) -> str:
    """The message's element."""
    return f"{phone_id(phone)}-{quote(message.id, safe='')}"


def phone_card(phone: Phone) -> str:
    """One phone with its messages."""
    channel, recipient = escape(phone.channel), escape(phone.recipient)
    name = f"{_title(phone.channel)} {phone.recipient}"
    block = ""
    if phone.channel == "TELEGRAM":
        words = "Take back" if phone.blocked else "Block"
        block = f'<button type="button" class="quiet" data-block="{str(not phone.blocked).lower()}">{words}</button>'
    messages = "".join(message_row(phone, message) for message in phone.messages)
    return (
        f'<article class="phone" id="{escape(phone_id(phone))}" data-channel="{channel}"'
        f' data-recipient="{recipient}" aria-label="{escape(name)}">'
        f'<header><span class="badge {channel.lower()}">{escape(_title(phone.channel))}</span>'
        f"<h3>{recipient}</h3>{block}</header>"
        f'<div class="messages" role="log" tabindex="0" aria-label="Messages of {escape(name)}">{messages}</div>'
        f'<form class="reply"><input name="text" required autocomplete="off" aria-label="Reply as {recipient}"'
        f' placeholder="Reply as this person"><button class="primary" aria-label="Send">&#8593;</button></form>'
        f"</article>"
    )


def message_row(phone: Phone, message: PhoneMessage) -> str:
    """One message as a bubble."""
    parts = [_media(item) for item in message.media]
    if message.text:
        parts.append(f'<p class="text">{escape(message.text)}</p>')
    if message.location is not None:
        latitude, longitude = message.location
        parts.append(f'<p class="extra">Location {latitude:.5f}, {longitude:.5f}</p>')
    if message.contact is not None:
        parts.append(f'<p class="extra">Contact {escape(message.contact[0])}, {escape(message.contact[1])}</p>')
    buttons = "".join(
        f'<div class="row">{"".join(_button(button, message) for button in row)}</div>' for row in message.buttons
    )
    side = "in" if message.incoming else "out"
    state = "" if message.state == "delivered" else f' <b class="state">{escape(message.state)}</b>'
    who = f"From {message.peer}" if message.incoming else f"To {message.peer}"
    return (
        f'<div class="message {side}" id="{escape(message_id(phone, message))}" data-message="{escape(message.id)}"'
        f' data-peer="{escape(message.peer)}">'
        f'<div class="bubble">{"".join(parts)}</div>{buttons}'
        f'<p class="meta">{escape(who)} · {_time(message.at)}{state}</p></div>'
    )


def callback_row(callback: ReceivedCallback) -> str:
    """One callback: a line to read, and everything behind it."""
    title, detail = _told(callback)
    answered = "no answer" if callback.status is None else str(callback.status)
    good = callback.status is not None and 200 <= callback.status < 300
    repeated = '<span class="chip warn">again</span>' if callback.repeated else ""
    attempt = callback.headers.get("switchboard-attempt", "1")
    if attempt != "1":
        repeated = f'<span class="chip warn">try {escape(attempt)}</span>'
    headers = "".join(
        f"<tr><th scope=row>{escape(name)}</th><td>{escape(value)}</td></tr>"
        for name, value in sorted(callback.headers.items())
    )
    note = f'<p class="note">{escape(callback.signature_note)}</p>' if callback.signature_note else ""
    return (
        f'<li class="callback"><details><summary><time>{_time(callback.at)}</time>'
        f'<b class="what">{escape(title)}</b>'
        f'<span class="chip {_tone(callback.signature)}">{_VERDICTS[callback.signature]}</span>'
        f'<span class="chip {"good" if good else "bad"}" title="answered">{answered}</span>{repeated}'
        f'<span class="detail">{escape(detail)}</span></summary>'
        f'<p class="note">{escape(callback.method)} {escape(callback.path)}</p>{note}'
        f"<pre>{escape(_pretty(callback.body))}</pre><table>{headers}</table></details></li>"
    )


def receiver_row(receiver: ReceiverSummary) -> str:
    """One receiver and how it behaves."""
    choices = (
        ("answer 200", '{"mode":"answer"}', receiver.behaviour.mode == "answer" and receiver.behaviour.status == 200),
        ("answer 500", '{"mode":"answer","status":500}', receiver.behaviour.status == 500),
        ("answer 429", '{"mode":"answer","status":429,"retry_after":"5"}', receiver.behaviour.status == 429),
        ("hang", '{"mode":"hang"}', receiver.behaviour.mode == "hang"),
        ("cut", '{"mode":"cut"}', receiver.behaviour.mode == "cut"),
        ("drip", '{"mode":"drip"}', receiver.behaviour.mode == "drip"),
        ("redirect", '{"mode":"redirect"}', receiver.behaviour.mode == "redirect"),
        ("flap", '{"mode":"flap","good":2,"bad":2}', receiver.behaviour.mode == "flap"),
        ("flood", '{"mode":"flood"}', receiver.behaviour.mode == "flood"),
    )
    options = "".join(
        f'<option value="{escape(value)}"{" selected" if chosen else ""}>{label}</option>'
        for label, value, chosen in choices
    )
    name = escape(receiver.name)
    secret = "secret known" if receiver.has_secret else "no secret"
    return (
        f'<p class="receiver" data-receiver="{name}"><code>/receiver/{name}</code><span>{secret}</span>'
        f'<label>behaves <select aria-label="How {name} behaves">{options}</select></label></p>'
    )


def _title(channel: str) -> str:
    return _CHANNEL_TITLES.get(channel, channel)


def _time(at: datetime) -> str:
    # The page puts it into the reader's own time zone.
    return f'<span class="time" data-at="{at.isoformat()}">{at:%H:%M:%S}</span>'


def _media(media: Media) -> str:
    name = escape(media.name or media.kind)
    if media.url.startswith("/media/") and media.kind in ("photo", "sticker"):
        return f'<img src="{escape(media.url)}" alt="{name}" loading="lazy">'
    if not media.url.startswith(("http://", "https://", "/media/")):
        return f'<p class="extra">{escape(media.kind)} {name}</p>'
    return (
        f'<p class="extra">{escape(media.kind)} '
        f'<a href="{escape(media.url)}" rel="noopener noreferrer" target="_blank">'
        f"{escape(media.name or media.url)}</a></p>"
    )


def _button(button: Button, message: PhoneMessage) -> str:
    if button.url:
        if not button.url.startswith(("http://", "https://")):
            return f'<span class="key">{escape(button.text)}</span>'
        return (
            f'<a class="key" href="{escape(button.url)}" rel="noopener noreferrer" target="_blank">'
            f"{escape(button.text)} &#8599;</a>"
        )
    pressed = ' aria-pressed="true"' if message.pressed == button.text else ""
    data = escape(button.data or button.text)
    return f'<button type="button" class="key" data-press="{data}"{pressed}>{escape(button.text)}</button>'


def _tone(verdict: Verdict) -> str:
    match verdict:
        case Verdict.VALID:
            return "good"
        case Verdict.INVALID | Verdict.UNSIGNED:
            return "bad"
        case Verdict.UNCHECKED:
            return "plain"


def _told(callback: ReceivedCallback) -> tuple[str, str]:
    """What kind of callback it is, and its main point."""
    try:
        body = msgspec.json.decode(callback.body)
    except msgspec.DecodeError:
        return callback.method, callback.path
    if not isinstance(body, dict):
        return callback.method, callback.path
    for key, title in _TRIGGER_TITLES.items():
        part = body.get(key)
        if isinstance(part, dict):
            identity = part.get("channel_identity")
            channel = str(identity.get("channel", "")) if isinstance(identity, dict) else ""
            reason = part.get("reason")
            code = str(reason.get("code", "")) if isinstance(reason, dict) else ""
            return title, " ".join(word for word in (str(part.get("status") or ""), channel, code) if word)
    return "Callback", callback.path


def _pretty(body: str) -> str:
    try:
        return msgspec.json.format(body, indent=2)[:_MOST_CALLBACK_JSON]
    except (msgspec.DecodeError, ValueError):
        return body


def _magic(rows: Iterable[Mapping[str, str]]) -> str:
    lines = "".join(
        f"<tr><td>{escape(_title(row['channel']))}</td><td><code>…{escape(row['ending'])}</code></td>"
        f"<td>{escape(row['does'])}</td></tr>"
        for row in rows
    )
    return f"<table><thead><tr><th>Channel<th>Ends in<th>What happens</thead><tbody>{lines}</tbody></table>"

"""The page: what it shows, and that nothing anybody sends can become part of it."""

import asyncio
from typing import Any

import msgspec
import pytest

_HOSTILE = "\"><script>alert(1)</script>'&"


async def page(simulator: Any) -> str:
    answer = await simulator.request("GET", "/")
    assert answer.status == 200
    text: str = answer.content.decode()
    return text


async def test_an_empty_page_says_what_to_do(simulator: Any) -> None:
    text = await page(simulator)

    assert "No phone has been written to yet." in text
    assert "/receiver/any-name" in text


async def test_phones_buttons_and_callbacks_are_shown(simulator: Any) -> None:
    keyboard = {
        "inline_keyboard": [[{"text": "Yes", "callback_data": "c:1"}, {"text": "Menu", "url": "https://a.example/m"}]]
    }
    await simulator.bot("sendMessage", chat_id=777, text="Coming?", reply_markup=keyboard)
    report = {"message_delivery_report": {"status": "DELIVERED", "channel_identity": {"channel": "SMS"}}}
    await simulator.request("POST", "/receiver/app", msgspec.json.encode(report))

    text = await page(simulator)

    assert 'data-recipient="777"' in text
    assert "Coming?" in text
    assert 'data-press="c:1"' in text
    assert 'href="https://a.example/m"' in text
    assert '<span class="detail">DELIVERED SMS</span>' in text


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "sendMessage", "text": _HOSTILE},
        {"method": "sendPhoto", "photo": "https://a.example/" + _HOSTILE, "caption": _HOSTILE},
        {"method": "sendContact", "phone_number": _HOSTILE, "first_name": _HOSTILE},
        {
            "method": "sendMessage",
            "text": "x",
            "reply_markup": {"inline_keyboard": [[{"text": _HOSTILE, "callback_data": _HOSTILE}]]},
        },
        {
            "method": "sendMessage",
            "text": "x",
            "reply_markup": {"inline_keyboard": [[{"text": "x", "url": "https://a.example/" + _HOSTILE}]]},
        },
    ],
    ids=str,
)
async def test_nothing_a_bot_sends_becomes_part_of_the_page(simulator: Any, fields: dict[str, Any]) -> None:
    answer = await simulator.bot(fields.pop("method"), chat_id=7, **fields)
    assert answer.status == 200

    text = await page(simulator)

    assert "<script>alert" not in text
    assert '"><script' not in text


async def test_nothing_a_callback_holds_becomes_part_of_the_page(simulator: Any) -> None:
    body = {"message_delivery_report": {"status": _HOSTILE}, "note": _HOSTILE}
    headers = {"x-note": _HOSTILE}
    await simulator.request("POST", "/receiver/a%22%3E%3Cscript%3Ealert", msgspec.json.encode(body), headers)

    assert "<script>alert" not in await page(simulator)


async def test_the_page_may_load_nothing_from_elsewhere(simulator: Any) -> None:
    answer = await simulator.request("GET", "/")

    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    for name in ("page.css", "page.js"):
        assert (await simulator.request("GET", f"/static/{name}")).status == 200
    assert (await simulator.request("GET", "/static/html.py")).status == 404


async def test_an_uploaded_file_is_shown_but_never_run(simulator: Any) -> None:
    form = (
        b'--XX\r\nContent-Disposition: form-data; name="chat_id"\r\n\r\n7\r\n--XX\r\n'
        b'Content-Disposition: form-data; name="document"; filename="a.html"\r\n'
        b"Content-Type: text/html\r\n\r\n<script>alert(1)</script>\r\n--XX--\r\n"
    )
    headers = {"content-type": "multipart/form-data; boundary=XX"}
    await simulator.request("POST", f"/bot{simulator.token}/sendDocument", form, headers)
    (message,) = simulator.world.phones.get("TELEGRAM", "7").messages

    answer = await simulator.request("GET", message.media[0].url)

    assert answer.status == 200
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_an_open_page_hears_of_messages_and_callbacks(simulated: Any) -> None:
    async with simulated() as simulator:
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.world.ports["http"])
        writer.write(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b": nothing new")

        await simulator.send(777, "Hello <you>")
        await reader.readuntil(b"event: phone\ndata: ")
        told = msgspec.json.decode(await reader.readuntil(b"\n"))
        await simulator.request("POST", "/receiver/app", b"{}")
        await reader.readuntil(b"event: callback\ndata: ")

        assert "Hello &lt;you&gt;" in told["message"]
        assert told["phone_id"] == "phone-TELEGRAM-777"
        writer.close()

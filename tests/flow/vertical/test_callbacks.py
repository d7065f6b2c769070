"""Callbacks of a whole installation: where they go, how they are signed, and an endpoint that is away for a while."""

import asyncio

from tests.flow.vertical.tenant import Tenant, phone

from switchboard.ids import random_token
from switchboard.testing import wait_until

REPORTED = ("QUEUED_ON_CHANNEL", "DELIVERED")


async def test_a_message_s_own_callback_url_is_called_instead_signed_with_the_app_s_secret(app: Tenant):
    secret, own = random_token(), f"own-{app.receiver}"
    changed = await app.installation.call(
        "PATCH", f"/apps/{app.app_id}", {"callback_settings": {"secret_for_overridden_callback_urls": secret}}
    )
    assert changed.status == 200, changed.content
    await app.installation.simulator("PUT", f"/receivers/{own}", secret=secret)

    url = f"{app.installation.running.simulator_url}/receiver/{own}"
    message_id = await app.send("Hello", ("SMS", phone()), callback_url=url)

    await wait_until(lambda: len(app.told(message_id, own)) == 2, 20, lambda: app.told(message_id, own))
    assert app.told(message_id, own) == list(REPORTED)
    assert app.told(message_id) == []


async def test_callbacks_to_an_endpoint_that_was_away_come_in_order_once_it_is_back(app: Tenant):
    numbers = [phone() for _ in range(5)]
    await app.installation.simulator("PUT", f"/receivers/{app.receiver}", behaviour={"mode": "answer", "status": 503})
    ids = [await app.send("Hello", ("SMS", number)) for number in numbers]
    for message_id in ids:
        await app.noted(message_id, "delivered")
    await wait_until(lambda: all(app.tried(message_id) for message_id in ids), 20, "each was tried")
    assert [app.told(message_id) for message_id in ids] == [[]] * 5

    await app.installation.simulator("PUT", f"/receivers/{app.receiver}", behaviour={"mode": "answer"})

    await asyncio.gather(*(app.reported(message_id, *REPORTED) for message_id in ids))
    assert all("message_submit_notification" in app.callbacks(message_id)[0] for message_id in ids)


async def test_one_refused_callback_is_tried_again_and_nothing_overtakes_it(app: Tenant):
    behaviour = {"mode": "answer", "status": 500, "count": 1, "match": "QUEUED_ON_CHANNEL"}
    await app.installation.simulator("PUT", f"/receivers/{app.receiver}", behaviour=behaviour)

    message_id = await app.send("Hello", ("SMS", phone()))

    await app.reported(message_id, *REPORTED)
    assert app.tried(message_id) == [200, 500, 200, 200]

"""The facts of SMS."""

from typing import Final

from switchboard.channel.manifest import (
    AccountOwner,
    Connection,
    CredentialField,
    CredentialSpec,
    Manifest,
    ReportMetadata,
    Support,
)
from switchboard.identity import ChannelName, normal_msisdn
from switchboard.status import Status
from switchboard_channels.sms.account import SmscAccount

#: Longest an attempt may take: an answer in 30 s (channel-providers 1.2.1), and time for later parts.
SEND_TIMEOUT_SECONDS: Final = 60.0

MANIFEST: Final = Manifest(
    channel=ChannelName("SMS"),
    title="SMS over SMPP 3.4",
    owner=AccountOwner.OPERATOR,
    connection=Connection.SESSION,
    credentials=CredentialSpec(
        "static_bearer", (CredentialField("claimed_identity"), CredentialField("token", secret=True))
    ),
    normal_identity=normal_msisdn,
    receipts=frozenset({Status.DELIVERED}),
    native_ttl=True,
    send_timeout_seconds=SEND_TIMEOUT_SECONDS,
    content={
        "text_message": Support.NATIVE,
        "media_message": Support.TEXT,
        "choice_message": Support.TEXT,
        "card_message": Support.TEXT,
        "carousel_message": Support.TEXT,
        "location_message": Support.TEXT,
        "list_message": Support.TEXT,
        "contact_info_message": Support.TEXT,
    },
    answers_by_text=True,
    sender_property="SMS_SENDER",
    properties=frozenset({"SMS_SENDER", "SMS_FLASH_MESSAGE", "SMS_MAX_NUMBER_OF_MESSAGE_PARTS"}),
    report_metadata=ReportMetadata("sms_batch_id", "number_of_message_parts", "SMS_MAX_NUMBER_OF_MESSAGE_PARTS"),
    account_settings=SmscAccount,
    account_rate=lambda settings: settings.account_rate,
)

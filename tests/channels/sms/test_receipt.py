"""Receipts as real SMSCs write them, and what they mean for a message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard.reason import ReasonCode
from switchboard.status import Status
from switchboard_channels.sms.codes import ErrorTable, receipt_status
from switchboard_channels.sms.pdu import Tag, Tlvs
from switchboard_channels.sms.receipt import (
    MessageState,
    MessagingMode,
    Receipt,
    ReceiptIdForm,
    canonical_id,
    fields,
    mode_of,
    read_receipt,
    spellings,
)

USUAL = (
    "id:0123456789 sub:001 dlvrd:001 submit date:2611210930 done date:2611210931 stat:DELIVRD err:000 text:first twenty"
)


@pytest.mark.parametrize(
    ("text", "tlvs", "receipt"),
    [
        (USUAL, {}, Receipt("0123456789", MessageState.DELIVERED)),
        (USUAL.replace(" text:first twenty", ""), {}, Receipt("0123456789", MessageState.DELIVERED)),
        ("ID:7 Stat:undeliv ERR:1a0", {}, Receipt("7", MessageState.UNDELIVERABLE, "1a0")),
        ("stat:EXPIRED id:7 err:", {}, Receipt("7", MessageState.EXPIRED)),
        ("id:7 stat:REJECTD submit date: done date: err:099", {}, Receipt("7", MessageState.REJECTED, "099")),
        ("id:7 stat:DELIVRD text:stat:UNDELIV id:9", {}, Receipt("7", MessageState.DELIVERED)),
        ("id:7 done date:261121093100 stat:DELIVRD", {}, Receipt("7", MessageState.DELIVERED)),
        ("id:7,stat:DELIVRD;err:0", {}, Receipt("7", MessageState.DELIVERED)),
        ("id: 7 stat: DELIVRD ", {}, Receipt("7", MessageState.DELIVERED)),
        ("id:7 stat:WHATEVER", {}, Receipt("7", None)),
        ("sent ok", {}, Receipt("", None)),
        (
            "",
            {Tag.RECEIPTED_MESSAGE_ID: b"4A\0", Tag.MESSAGE_STATE: b"\x05", Tag.NETWORK_ERROR_CODE: b"\x03\0\x99"},
            Receipt("4A", MessageState.UNDELIVERABLE, "153"),
        ),
        (
            "id:99 stat:DELIVRD err:000",
            {Tag.RECEIPTED_MESSAGE_ID: b"4A", Tag.MESSAGE_STATE: b"\x03", Tag.MCCMNC: b"23430\0"},
            Receipt("4A", MessageState.EXPIRED, "", "23430"),
        ),
        ("id:7 stat:DELIVRD", {Tag.MESSAGE_STATE: b"\x63"}, Receipt("7", MessageState.DELIVERED)),
        ("id:7 stat:DELIVRD", {Tag.MCCMNC: b"what"}, Receipt("7", MessageState.DELIVERED)),
        ("id:7 stat:DELIVRD", {Tag.NETWORK_ERROR_CODE: b"\x03"}, Receipt("7", MessageState.DELIVERED)),
    ],
)
def test_receipts_are_read_however_they_are_written(text: str, tlvs: Tlvs, receipt: Receipt) -> None:
    assert read_receipt(text, tlvs) == receipt


def test_all_fields_are_found_and_the_text_keeps_its_own() -> None:
    assert fields(USUAL + " stat:UNDELIV") == {
        "id": "0123456789",
        "sub": "001",
        "dlvrd": "001",
        "submitdate": "2611210930",
        "donedate": "2611210931",
        "stat": "DELIVRD",
        "err": "000",
        "text": "first twenty stat:UNDELIV",
    }


@given(st.text(), st.dictionaries(st.sampled_from(Tag), st.binary(max_size=10)))
def test_no_receipt_makes_the_scanner_raise(text: str, tlvs: dict[int, bytes]) -> None:
    receipt = read_receipt(text, tlvs)
    receipt_status(receipt, ErrorTable.SINCH)
    spellings(receipt.message_id)


@pytest.mark.parametrize(
    ("answered", "in_receipt", "form"),
    [
        ("42", "42", ReceiptIdForm.ANY),
        ("4A", "74", ReceiptIdForm.ANY),
        ("4a", "00000074", ReceiptIdForm.ANY),
        ("74", "4A", ReceiptIdForm.ANY),
        ("0000004A", "4a", ReceiptIdForm.ANY),
        ("4A", "0000004a", ReceiptIdForm.ANY),
        ("ABCDEF01-aa", "abcdef01-AA", ReceiptIdForm.ANY),
        ("0", "0", ReceiptIdForm.ANY),
        ("00Ab", "00Ab", ReceiptIdForm.SAME),
        ("4A", "0074", ReceiptIdForm.DECIMAL_OF_HEX),
        ("0074", "4A", ReceiptIdForm.HEX_OF_DECIMAL),
    ],
)
def test_a_receipt_finds_its_answer_however_ids_are_spelled(
    answered: str, in_receipt: str, form: ReceiptIdForm
) -> None:
    assert canonical_id(answered, form) in spellings(in_receipt, form)


@pytest.mark.parametrize(
    ("answered", "in_receipt", "form"),
    [
        ("4A", "4a", ReceiptIdForm.SAME),
        ("74", "74", ReceiptIdForm.DECIMAL_OF_HEX),
        ("4A", "4B", ReceiptIdForm.ANY),
        ("xyz", "0xyz1", ReceiptIdForm.ANY),
    ],
)
def test_a_receipt_does_not_find_anothers_answer(answered: str, in_receipt: str, form: ReceiptIdForm) -> None:
    assert canonical_id(answered, form) not in spellings(in_receipt, form)


def test_the_plain_spelling_is_tried_first() -> None:
    assert spellings("0010") == ("10", "a", "16")


@pytest.mark.parametrize(
    ("esm_class", "mode"),
    [
        (0x00, MessagingMode.MESSAGE),
        (0x40, MessagingMode.MESSAGE),
        (0x04, MessagingMode.RECEIPT),
        (0x44, MessagingMode.RECEIPT),
        (0x20, MessagingMode.INTERMEDIATE),
        (0x08, MessagingMode.ACKNOWLEDGEMENT),
        (0x10, MessagingMode.ACKNOWLEDGEMENT),
    ],
)
def test_the_message_type_bits_tell_receipts_from_messages(esm_class: int, mode: MessagingMode) -> None:
    assert mode_of(esm_class) is mode


@pytest.mark.parametrize(
    ("state", "error", "meaning"),
    [
        (MessageState.SCHEDULED, "", None),
        (MessageState.ENROUTE, "", None),
        (MessageState.DELIVERED, "", (Status.DELIVERED, None)),
        (MessageState.EXPIRED, "", (Status.FAILED, ReasonCode.DELIVERY_TIMED_OUT)),
        (MessageState.DELETED, "", (Status.FAILED, ReasonCode.CHANNEL_REJECT)),
        (MessageState.UNDELIVERABLE, "", (Status.FAILED, ReasonCode.RECIPIENT_NOT_REACHABLE)),
        (MessageState.UNDELIVERABLE, "1a0", (Status.FAILED, ReasonCode.RECIPIENT_NOT_REACHABLE)),
        (MessageState.UNDELIVERABLE, "061", (Status.FAILED, ReasonCode.DELIVERY_REJECTED_DUE_TO_POLICY)),
        (MessageState.UNDELIVERABLE, "100", (Status.FAILED, ReasonCode.RECIPIENT_INVALID_CHANNEL_IDENTITY)),
        (MessageState.UNDELIVERABLE, "255", (Status.FAILED, ReasonCode.RECIPIENT_NOT_OPTED_IN)),
        (MessageState.UNDELIVERABLE, "311", (Status.FAILED, ReasonCode.CHANNEL_BAD_CONFIGURATION)),
        (MessageState.UNDELIVERABLE, "340", (Status.FAILED, ReasonCode.BAD_REQUEST)),
        (MessageState.UNDELIVERABLE, "999", (Status.FAILED, ReasonCode.RECIPIENT_NOT_REACHABLE)),
        (MessageState.ACCEPTED, "", None),
        (MessageState.UNKNOWN, "", None),
        (MessageState.REJECTED, "100", (Status.FAILED, ReasonCode.CHANNEL_REJECT)),
        (MessageState.SKIPPED, "", (Status.FAILED, ReasonCode.CHANNEL_REJECT)),
        (None, "", None),
    ],
)
def test_states_mean_what_the_table_says(
    state: MessageState | None, error: str, meaning: tuple[Status, ReasonCode | None] | None
) -> None:
    told = receipt_status(Receipt("1", state, error), ErrorTable.SINCH)

    assert (told and (told[0], told[1] and told[1].code)) == meaning


def test_acceptd_is_delivery_only_where_the_account_says_so() -> None:
    receipt = Receipt("1", MessageState.ACCEPTED)

    assert receipt_status(receipt, ErrorTable.SINCH, accepted_is_delivered=True) == (Status.DELIVERED, None)


def test_another_vendors_errors_are_quoted_not_understood() -> None:
    told = receipt_status(Receipt("1", MessageState.UNDELIVERABLE, "100"), ErrorTable.NONE)

    assert told is not None
    assert told[1] is not None
    assert (told[1].code, told[1].channel_code) == (ReasonCode.RECIPIENT_NOT_REACHABLE, "100")
    assert "UNDELIVERABLE err:100" in told[1].description

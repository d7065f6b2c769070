"""The codec against bytes written by hand from the specification, and against itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard_channels.sms import pdu
from switchboard_channels.sms.pdu import Frame, PduStream, Status, Tag, Undecodable

SUBMIT_SM = bytes.fromhex(
    "0000003e" "00000004" "00000000" "00000005"  # length 62, submit_sm, status 0, sequence 5
    "00"                                          # service_type ""
    "05 00 41636d6500"                            # alphanumeric "Acme"
    "01 01 343637303132333030303100"              # international ISDN "46701230001"
    "40 00 00"                                    # esm_class UDHI, protocol, priority
    "00 00"                                       # schedule, validity
    "01 00 00 00"                                 # receipt wanted, replace, data_coding, default message
    "08 050003070201 4869"                        # 8 octets: header of part 1 of 2, "Hi"
    "0204 0002 1234"                              # user_message_reference
)  # fmt: skip

DELIVER_RECEIPT = bytes.fromhex(
    "0000004f" "00000005" "00000000" "0000002a"
    "00"
    "01 01 343637303132333030303100"
    "05 00 41636d6500"
    "04 00 00"
    "00 00"
    "00 00 00 00"
    "09 69643a3461206f6b21"                       # "id:4a ok!"
    "001e 0003 344100"                            # receipted_message_id "4A"
    "0427 0001 02"                                # message_state delivered
    "1403 0006 323334333000"                      # MCCMNC "23430"
)  # fmt: skip

GOLDEN = [
    (
        SUBMIT_SM,
        Frame(
            5,
            0,
            pdu.SubmitSm(
                source_addr_ton=5,
                source_addr="Acme",
                dest_addr_ton=1,
                dest_addr_npi=1,
                destination_addr="46701230001",
                esm_class=0x40,
                registered_delivery=1,
                short_message=b"\x05\x00\x03\x07\x02\x01Hi",
                tlvs={Tag.USER_MESSAGE_REFERENCE: b"\x12\x34"},
            ),
        ),
    ),
    (
        DELIVER_RECEIPT,
        Frame(
            42,
            0,
            pdu.DeliverSm(
                source_addr_ton=1,
                source_addr_npi=1,
                source_addr="46701230001",
                dest_addr_ton=5,
                destination_addr="Acme",
                esm_class=4,
                short_message=b"id:4a ok!",
                tlvs={
                    Tag.RECEIPTED_MESSAGE_ID: b"4A\0",
                    Tag.MESSAGE_STATE: b"\x02",
                    Tag.MCCMNC: b"23430\0",
                },
            ),
        ),
    ),
    (
        bytes.fromhex(
            "00000024 00000009 00000000 00000001"
            "736d7070636c6900 70773100 564d5300 34 00 00 00"  # smppcli, pw1, VMS, version 3.4
        ),
        Frame(1, 0, pdu.BindTransceiver("smppcli", "pw1", "VMS")),
    ),
    (
        bytes.fromhex("0000001a 80000009 00000000 00000001 534d534300 0210 0001 34"),
        Frame(1, 0, pdu.BindTransceiverResp("SMSC", {Tag.SC_INTERFACE_VERSION: b"\x34"})),
    ),
    (
        bytes.fromhex("00000013 80000004 00000000 00000007 343200"),
        Frame(7, 0, pdu.SubmitSmResp("42")),
    ),
    (
        bytes.fromhex("00000011 80000005 00000000 0000002a 00"),
        Frame(42, 0, pdu.DeliverSmResp()),
    ),
    (bytes.fromhex("00000010 00000015 00000000 00000003"), Frame(3, 0, pdu.EnquireLink())),
    (bytes.fromhex("00000010 80000015 00000000 00000003"), Frame(3, 0, pdu.EnquireLinkResp())),
    (bytes.fromhex("00000010 00000006 00000000 00000004"), Frame(4, 0, pdu.Unbind())),
    (bytes.fromhex("00000010 80000006 00000000 00000004"), Frame(4, 0, pdu.UnbindResp())),
    (bytes.fromhex("00000010 80000000 00000003 00000009"), Frame(9, 3, pdu.GenericNack())),
    (
        bytes.fromhex(
            "00000037 00000021 00000000 00000001 00 01 01 31323300"
            "02 01 01 01 34363100 02 6c69737400"  # two destinations: 461, and the list "list"
            "00 00 00 00 00 01 00 00 00 02 4869 0204 0002 0001"
        ),
        Frame(
            1,
            0,
            pdu.SubmitMulti(
                source_addr_ton=1,
                source_addr_npi=1,
                source_addr="123",
                destinations=(pdu.Destination(1, 1, "461"), pdu.DistributionList("list")),
                registered_delivery=1,
                short_message=b"Hi",
                tlvs={Tag.USER_MESSAGE_REFERENCE: b"\0\x01"},
            ),
        ),
    ),
    (
        bytes.fromhex("0000001e 80000021 00000000 00000001 343200 01 01 01 34363100 0000000b"),
        Frame(1, 0, pdu.SubmitMultiResp("42", (pdu.Refusal(1, 1, "461", 11),))),
    ),
    (
        bytes.fromhex("00000019 00000003 00000000 00000001 343200 01 01 34363100"),
        Frame(1, 0, pdu.QuerySm("42", 1, 1, "461")),
    ),
    (
        bytes.fromhex("00000016 80000003 00000000 00000001 343200 00 02 00"),
        Frame(1, 0, pdu.QuerySmResp("42", "", 2, 0)),
    ),
    (
        bytes.fromhex("00000020 00000008 00000000 00000001 00 343200 01 01 34363100 01 01 34363200"),
        Frame(1, 0, pdu.CancelSm("", "42", 1, 1, "461", 1, 1, "462")),
    ),
    (
        bytes.fromhex("00000020 00000007 00000000 00000001 343200 01 01 34363100 00 00 01 00 02 4869"),
        Frame(1, 0, pdu.ReplaceSm("42", 1, 1, "461", registered_delivery=1, short_message=b"Hi")),
    ),
    (
        bytes.fromhex(
            "00000026 00000103 00000000 00000001 00 01 01 34363100 01 01 34363200 00 01 00 0424 0002 4869"
        ),
        Frame(
            1, 0, pdu.DataSm("", 1, 1, "461", 1, 1, "462", 0, 1, 0, {Tag.MESSAGE_PAYLOAD: b"Hi"})
        ),
    ),
    (
        bytes.fromhex("0000001c 00000102 00000000 00000001 01 01 34363100 01 01 34363200"),
        Frame(1, 0, pdu.AlertNotification(1, 1, "461", 1, 1, "462")),
    ),
    (
        bytes.fromhex("00000019 0000000b 00000000 00000001 534d534300 70773100"),
        Frame(1, 0, pdu.Outbind("SMSC", "pw1")),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("octets", "frame"), GOLDEN, ids=[type(frame.body).__name__ for _, frame in GOLDEN])
def test_a_pdu_is_written_and_read_as_the_specification_says(octets: bytes, frame: Frame) -> None:
    assert pdu.encode(frame.body, frame.sequence, frame.status) == octets
    assert PduStream().feed(octets) == [frame]


def test_every_command_of_the_specification_has_a_body() -> None:
    for command in pdu.Command:
        assert command in pdu.BODIES
        if command not in (pdu.Command.OUTBIND, pdu.Command.ALERT_NOTIFICATION, pdu.Command.GENERIC_NACK):
            assert command | pdu.RESPONSE_BIT in pdu.BODIES


@given(data=st.data())
def test_a_stream_may_break_anywhere(data: st.DataObject) -> None:
    octets = b"".join(raw for raw, _ in GOLDEN)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=40)))
    stream = PduStream()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(octets)], strict=True):
        found += stream.feed(octets[start:end])

    assert found == [frame for _, frame in GOLDEN]


text = st.text(st.characters(min_codepoint=1, max_codepoint=0x7E), max_size=20)
octet = st.integers(0, 255)


@given(
    address=text,
    numbers=st.lists(octet, min_size=4, max_size=4),
    content=st.binary(max_size=254),
    tlvs=st.dictionaries(st.integers(0, 0xFFFF), st.binary(max_size=300), max_size=5),
)
def test_any_message_comes_back_as_it_was(
    address: str, numbers: list[int], content: bytes, tlvs: dict[int, bytes]
) -> None:
    body = pdu.DeliverSm(
        source_addr=address,
        esm_class=numbers[0],
        protocol_id=numbers[1],
        data_coding=numbers[2],
        sm_default_msg_id=numbers[3],
        short_message=content,
        tlvs=tlvs,
    )

    assert PduStream().feed(pdu.encode(body, 9)) == [Frame(9, 0, body)]


@given(st.binary(max_size=400))
def test_noise_never_raises(noise: bytes) -> None:
    PduStream().feed(noise)
    for command_id in pdu.BODIES:
        header = (16 + len(noise)).to_bytes(4, "big") + command_id.to_bytes(4, "big") + bytes(8)
        assert len(PduStream().feed(header + noise)) == 1


def header(length: int, command_id: int, status: int = 0, sequence: int = 7) -> bytes:
    return b"".join(number.to_bytes(4, "big") for number in (length, command_id, status, sequence))


def test_a_refusal_may_come_without_a_body() -> None:
    assert PduStream().feed(header(16, 0x80000004, 0x58)) == [Frame(7, 0x58, pdu.SubmitSmResp())]


def test_a_message_id_ends_at_its_nul_and_tlvs_may_follow() -> None:
    octets = header(16 + 8, 0x80000004) + b"42\0" + bytes.fromhex("0428000163")
    [frame] = PduStream().feed(octets)

    assert isinstance(frame, Frame)
    assert frame.body == pdu.SubmitSmResp("42", {Tag.CONGESTION_STATE: b"\x63"})


def test_a_message_id_may_lack_its_nul() -> None:
    assert PduStream().feed(header(18, 0x80000004) + b"42") == [Frame(7, 0, pdu.SubmitSmResp("42"))]


@pytest.mark.parametrize("length", [0, 15, pdu.MAX_PDU_BYTES + 1, 0xFFFFFFFF])
def test_an_impossible_length_ends_the_stream(length: int) -> None:
    stream = PduStream()
    good = pdu.encode(pdu.EnquireLink(), 1)

    found = stream.feed(good + header(length, 4) + good)

    assert found == [
        Frame(1, 0, pdu.EnquireLink()),
        Undecodable(4, 7, Status.RINVCMDLEN, fatal=True),
    ]
    assert stream.feed(good) == []


def test_an_unknown_command_does_not_end_the_stream() -> None:
    stream = PduStream()
    found = stream.feed(header(20, 0x0ABC) + b"????" + pdu.encode(pdu.EnquireLink(), 1))

    assert found == [Undecodable(0x0ABC, 7, Status.RINVCMDID), Frame(1, 0, pdu.EnquireLink())]


@pytest.mark.parametrize(
    ("cut", "status"),
    [
        (0, Status.RINVCMDLEN),
        (10, Status.RINVCMDLEN),
        (len(SUBMIT_SM) - 16 - 6 - 1, Status.RINVMSGLEN),
    ],
)
def test_a_body_that_is_cut_off_does_not_end_the_stream(cut: int, status: int) -> None:
    body = SUBMIT_SM[16 : 16 + cut]

    assert PduStream().feed(header(16 + cut, 4) + body) == [Undecodable(4, 7, status)]


def test_a_tlv_that_is_cut_off_is_left_out() -> None:
    body = pdu.encode(pdu.DeliverSm(short_message=b"id:1", tlvs={Tag.MESSAGE_STATE: b"\x02"}), 7)[16:]
    octets = body + bytes.fromhex("1403 0009 3233")
    [frame] = PduStream().feed(header(16 + len(octets), 5) + octets)

    assert isinstance(frame, Frame)
    assert frame.body == pdu.DeliverSm(short_message=b"id:1", tlvs={Tag.MESSAGE_STATE: b"\x02"})


def test_a_text_that_is_cut_off_is_refused_not_lost() -> None:
    octets = pdu.encode(pdu.DeliverSm(), 7)[16:] + bytes.fromhex("0424 0009 3233")

    assert PduStream().feed(header(16 + len(octets), 5) + octets) == [Undecodable(5, 7, Status.RINVPARLEN)]


@pytest.mark.parametrize(
    "body",
    [
        pdu.SubmitSm(source_addr="x" * 21),
        pdu.SubmitSm(source_addr="Ünder"),
        pdu.SubmitSm(source_addr="a\0b"),
        pdu.SubmitSm(short_message=b"x" * 255),
        pdu.SubmitSm(esm_class=256),
        pdu.SubmitSm(tlvs={Tag.MESSAGE_PAYLOAD: b"x" * 65_536}),
        pdu.BindTransceiver(password="123456789"),
        pdu.SubmitMulti(),
    ],
)
def test_a_value_that_does_not_fit_is_not_written(body: pdu.Body) -> None:
    with pytest.raises(pdu.UnwritableValue):
        pdu.encode(body, 1)


def test_passwords_numbers_and_texts_are_not_shown() -> None:
    shown = repr(
        [
            pdu.BindTransceiver("id", "secret"),
            pdu.Outbind("id", "secret"),
            pdu.SubmitSm(destination_addr="secret", short_message=b"secret"),
            pdu.SubmitMulti(destinations=(pdu.Destination(1, 1, "secret"),)),
            pdu.AlertNotification(source_addr="secret"),
            pdu.ReplaceSm(source_addr="secret", short_message=b"secret"),
            pdu.DataSm(destination_addr="secret", tlvs={Tag.MESSAGE_PAYLOAD: b"secret"}),
        ]
    )

    assert "secret" not in shown

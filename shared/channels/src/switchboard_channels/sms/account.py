"""What an operator writes down for an SMSC account: the facts of one provider, in one place."""

from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from switchboard_channels.sms.addresses import AddressRules, Npi, Ton
from switchboard_channels.sms.codes import ErrorTable
from switchboard_channels.sms.concat import LongMessages
from switchboard_channels.sms.encoding import DefaultAlphabet
from switchboard_channels.sms.link import LinkTimes
from switchboard_channels.sms.receipt import ReceiptIdForm


class TonNpi(BaseModel):
    """Type of number and numbering plan of one kind of address."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ton: int = Field(ge=0, le=255)
    npi: int = Field(ge=0, le=255)


class SmscAccount(BaseModel):
    """One SMPP account. Defaults fit a usual SMSC (channel-providers 1.2)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(min_length=1, description="Name or address of the SMSC.")
    port: int = Field(2775, ge=1, le=65_535, description="Its TCP port; TLS has one of its own.")
    tls: bool = Field(False, description="Whether that port speaks TLS. There is no STARTTLS on SMPP.")
    tls_ca_file: str | None = Field(None, description="PEM file of the CA to trust instead of the system's.")
    system_id: str = Field(min_length=1, max_length=15, description="The account's name at the SMSC.")
    password: SecretStr = Field(SecretStr(""), max_length=8, description="Its password, at most 8 characters.")
    system_type: str = Field("", max_length=12, description="What the SMSC wants as system_type, if anything.")
    service_type: str = Field("", max_length=5, description="What the SMSC wants as service_type, if anything.")
    address_range: str = Field("", max_length=40, description="Numbers a receiver asks for, if the SMSC wants.")
    bind_mode: Literal["transceiver", "pair"] = Field(
        "transceiver", description="One bind for both directions, or a transmitter and a receiver."
    )

    max_binds: int = Field(
        2, ge=1, le=100, description="Sessions the account allows over all instances; a pair counts once."
    )
    window: int = Field(10, ge=1, le=1_000, description="Unanswered submits a bind may have.")
    messages_per_second: float | None = Field(
        10.0, gt=0, description="Parts a second one bind may send; null: as fast as the window allows."
    )
    account_messages_per_second: float | None = Field(
        None,
        gt=0,
        description="Parts a second the account may send, over all binds, instances and apps; null: what its binds "
        "may send together.",
    )
    connect_timeout_seconds: float = Field(10.0, gt=0)
    bind_timeout_seconds: float = Field(10.0, gt=0)
    response_timeout_seconds: float = Field(
        30.0, gt=0, description="Without an answer for so long, nobody knows whether a submit was taken."
    )
    enquire_interval_seconds: float = Field(30.0, gt=0, description="Silence after which we ask for a sign.")
    enquire_timeout_seconds: float = Field(10.0, gt=0, description="How long the sign may take.")
    unbind_timeout_seconds: float = Field(5.0, gt=0, description="How long a clean end may take.")
    first_reconnect_seconds: float = Field(1.0, gt=0, description="First pause before connecting again.")
    longest_reconnect_seconds: float = Field(60.0, gt=0, description="Longest one; with jitter, doubling.")
    bad_credentials_seconds: float = Field(
        60.0, gt=0, description="Pause after the SMSC refused our system_id or password."
    )

    default_sender: str = Field("", max_length=20, description="The sender where a message names none.")
    short_code_source: TonNpi = Field(
        TonNpi(ton=Ton.UNKNOWN, npi=Npi.ISDN), description="How short codes of 3 to 8 digits are marked."
    )
    alphanumeric_source: TonNpi = Field(
        TonNpi(ton=Ton.ALPHANUMERIC, npi=Npi.UNKNOWN), description="How letters are marked as a sender."
    )
    international: TonNpi = Field(
        TonNpi(ton=Ton.INTERNATIONAL, npi=Npi.ISDN), description="How E.164 numbers are marked."
    )

    default_alphabet: DefaultAlphabet = Field(DefaultAlphabet.GSM7, description="What the SMSC means by data_coding 0.")
    long_messages: LongMessages = Field(LongMessages.UDH, description="How parts are marked.")
    reference_bits: Literal[8, 16] = Field(8, description="Size of the reference in a UDH.")
    flash_uses_f0: bool = Field(False, description="Mark a GSM-7 flash message with data_coding 0xF0 instead of 0x10.")
    plain_punctuation: bool = Field(
        False, description="Replace typographic quotes, dashes and spaces that would force UCS-2."
    )
    longest_validity_seconds: int = Field(
        72 * 3600, ge=60, le=30 * 86_400, description="Longest validity_period the SMSC takes."
    )
    user_message_reference: bool = Field(
        True, description="Send the optional parameter that names the attempt; some SMSCs refuse it."
    )

    receipt_ids: ReceiptIdForm = Field(
        ReceiptIdForm.ANY, description="How receipt ids relate to those of answers, once learnt."
    )
    receipt_errors: ErrorTable = Field(ErrorTable.SINCH, description="Whose error numbers receipts carry.")
    accepted_is_delivered: bool = Field(False, description="Take ACCEPTD for delivery: some carriers never say more.")

    @property
    def account_rate(self) -> float | None:
        """Parts a second over all binds and instances. None: as fast as the windows allow."""
        if self.account_messages_per_second is not None:
            return self.account_messages_per_second
        return None if self.messages_per_second is None else self.messages_per_second * self.max_binds

    @cached_property
    def address_rules(self) -> AddressRules:
        """TON and NPI by kind of address."""
        return AddressRules(
            (self.international.ton, self.international.npi),
            (self.short_code_source.ton, self.short_code_source.npi),
            (self.alphanumeric_source.ton, self.alphanumeric_source.npi),
        )

    @cached_property
    def link_times(self) -> LinkTimes:
        """What a link needs to know."""
        return LinkTimes(
            window=self.window,
            rate_per_second=self.messages_per_second,
            connect_timeout_seconds=self.connect_timeout_seconds,
            bind_timeout_seconds=self.bind_timeout_seconds,
            response_timeout_seconds=self.response_timeout_seconds,
            enquire_interval_seconds=self.enquire_interval_seconds,
            enquire_timeout_seconds=self.enquire_timeout_seconds,
            unbind_timeout_seconds=self.unbind_timeout_seconds,
        )

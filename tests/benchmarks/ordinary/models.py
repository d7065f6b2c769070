"""The records of the ordinary build."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel


class Identity(BaseModel):
    channel: str
    identity: str


class Identities(BaseModel):
    channel_identities: list[Identity]


class Recipient(BaseModel):
    identified_by: Identities


class Text(BaseModel):
    text: str


class Content(BaseModel):
    text_message: Text


class SendRequest(BaseModel):
    app_id: str
    recipient: Recipient
    message: Content
    channel_priority_order: list[str] = []
    message_metadata: str = ""
    correlation_id: str = ""


class Accepted(BaseModel):
    message_id: str
    project_id: str
    accepted_at: datetime
    request: SendRequest


class Dispatch(BaseModel):
    message_id: str
    step: int
    submission: int
    app_id: str
    identity: Identity
    message: Content
    send_before: datetime


class Happened(BaseModel):
    """An outcome or a receipt."""

    message_id: str
    kind: str
    status: str
    provider_id: str
    at: datetime


class Callback(BaseModel):
    callback_id: str
    message_id: str
    app_id: str
    project_id: str
    sequence: int
    event_at: datetime
    body: str


class DeliveryReport(BaseModel):
    message_id: str
    status: str
    channel_identity: Identity
    metadata: str


class ReportBody(BaseModel):
    app_id: str
    project_id: str
    accepted_time: datetime
    event_time: datetime
    message_delivery_report: DeliveryReport
    correlation_id: str

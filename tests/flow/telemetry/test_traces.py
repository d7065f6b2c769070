"""One message's life is one trace at an OTLP endpoint, whose id is the message's id."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from msgspec.structs import replace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.flow.router.conftest import CHAT, PHONE, Router, make_router, pool, store  # noqa: F401
from tests.flow.router.test_messages import REJECTED, finished, receipt

from switchboard.channel.outcome import Accepted, Rejected
from switchboard.ids import trace_id_of
from switchboard.status import Status
from switchboard.telemetry.export import TraceExport


@dataclass
class Collector:
    """An OTLP/HTTP endpoint that keeps what it is sent."""

    url: str = ""
    spans: list[Any] = field(default_factory=list)
    services: dict[bytes, str] = field(default_factory=dict)
    status: int = 200

    def take(self, body: bytes) -> None:
        for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {attribute.key: attribute.value.string_value for attribute in resource_spans.resource.attributes}
            for scope_spans in resource_spans.scope_spans:
                for span in scope_spans.spans:
                    self.spans.append(span)
                    self.services[span.span_id] = names["service.name"]


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if collector.status == 200:
                import gzip

                is_packed = self.headers.get("Content-Encoding") == "gzip"
                collector.take(gzip.decompress(body) if is_packed else body)
            self.send_response(collector.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield collector
    server.shutdown()
    server.server_close()
    thread.join()


async def export(router: Router, collector: Collector) -> None:
    """Let the settling time pass and export what is due."""
    await router.context.pool.execute("UPDATE clock SET shift = shift + '10 s'")
    await TraceExport(router.context.pool, OTLPSpanExporter(endpoint=collector.url)).export_once()


@pytest.fixture
async def traced(make_router: Any) -> Router:  # noqa: F811
    router: Router = await make_router()
    return Router(replace(router.context, trace_ratio=1.0), router.app, router.kafka, router.prefix)


async def test_a_message_s_life_is_one_trace_named_by_its_id(traced: Router, collector: Collector):
    sent = traced.accepted(PHONE, traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    await traced.plan(sent)
    await traced.tell(finished(sent.message_id, Accepted(("p1",))))
    await traced.tell(receipt(sent.message_id, Status.DELIVERED))

    await export(traced, collector)

    expected = trace_id_of(sent.message_id).to_bytes(16, "big")
    assert {span.trace_id for span in collector.spans} == {expected}
    by_name = {span.name: span for span in collector.spans}
    assert {"message", "accept", "plan", "receipt DELIVERED"} <= set(by_name)
    root = by_name["message"]
    assert root.parent_span_id == b""
    assert all(span.parent_span_id == root.span_id for span in collector.spans if span is not root)
    assert root.links[0].trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert collector.services[by_name["receipt DELIVERED"].span_id] == "channel-adapter"


async def test_a_life_exported_twice_is_the_same_spans(traced: Router, collector: Collector):
    sent = traced.accepted(CHAT)
    await traced.plan(sent)
    await traced.tell(finished(sent.message_id, Rejected(REJECTED)))
    await export(traced, collector)
    first = {span.span_id for span in collector.spans}
    await traced.context.pool.execute(
        "INSERT INTO trace_exports (message_id, due_at) VALUES ($1, switchboard.now())", sent.message_id
    )

    await export(traced, collector)

    assert {span.span_id for span in collector.spans} == first


async def test_an_unsampled_message_costs_nothing_unless_it_is_remarkable(make_router: Any, collector: Collector):  # noqa: F811
    router: Router = await make_router()
    router = Router(replace(router.context, trace_ratio=0.0), router.app, router.kafka, router.prefix)
    good, bad = router.accepted(CHAT), router.accepted(CHAT)
    await router.plan(good, bad)
    await router.tell(finished(good.message_id, Accepted(("777000:1",))), finished(bad.message_id, Rejected(REJECTED)))

    await export(router, collector)

    assert {span.trace_id for span in collector.spans} == {trace_id_of(bad.message_id).to_bytes(16, "big")}
    root = next(span for span in collector.spans if span.name == "message")
    assert root.status.message == "CHANNEL_REJECT"


async def test_nothing_is_forgotten_while_the_endpoint_is_away(traced: Router, collector: Collector):
    sent = traced.accepted(CHAT)
    await traced.plan(sent)
    await traced.tell(finished(sent.message_id, Rejected(REJECTED)))
    collector.status = 400
    with pytest.raises(ConnectionError):
        await export(traced, collector)
    collector.status = 200
    await traced.context.pool.execute("UPDATE clock SET shift = shift + '2 min'")

    await asyncio.wait_for(export(traced, collector), 30)

    assert {span.name for span in collector.spans} >= {"message", "plan"}


async def test_a_trace_holds_no_text_and_no_identity(traced: Router, collector: Collector):
    sent = traced.accepted(PHONE)
    await traced.plan(sent)
    await traced.tell(finished(sent.message_id, Accepted(("p1",))))
    await traced.tell(receipt(sent.message_id, Status.DELIVERED))

    await export(traced, collector)

    everything = b"".join(span.SerializeToString() for span in collector.spans)
    assert PHONE.identity.encode() not in everything
    assert b"ferry" not in everything

"""The bare legs: what must be paid in any case, with nothing of Switchboard in it (DESIGN 12).

Two bare ASGI servers, two bare HTTP clients, three pass-through Kafka hops, one COPY and three batched updates.
"""

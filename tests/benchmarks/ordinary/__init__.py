"""An ordinary build of the same vertical: what a competent team writes in a week, to compare with (DESIGN 12).

The same hops, the same rows, the same statuses and signed callbacks, acknowledged by all replicas and committed by the
database. One record and one statement at a time; pydantic models; Starlette, aiokafka, asyncpg as their manuals show
them. Orders per recipient and per message are kept. Two things are lent to it: our SMPP link, since there is no
ordinary one, and the HTTP client `pyreqwest`, which costs half of what aiohttp does. Both favour it.
"""

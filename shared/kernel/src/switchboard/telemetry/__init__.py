"""Traces, built from timelines after the fact (DESIGN 10).

The trace id of a message is its message id's 16 bytes, and span ids come from event ids: whoever holds the id from any
callback opens the whole life, and exporting a life twice exports the same spans. An unsampled message costs nothing;
one that failed, switched or was slow is exported in full although sampling left it out.
"""

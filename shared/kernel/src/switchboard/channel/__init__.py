"""The channel contract: what a channel folder offers, and what the host gives it.

A channel is a folder in `switchboard_channels`: `manifest` (facts) and `render` (pure) may be imported by every
service; `adapter` and what it wires (`send` or `session`, `webhook`, `codes`) only by the channel-adapter service.
"""

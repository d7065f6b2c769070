"""TELEGRAM over the Bot API (channel-providers 8)."""

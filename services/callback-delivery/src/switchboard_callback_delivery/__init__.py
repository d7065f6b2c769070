"""Delivers signed callbacks for 24 hours, in order, per endpoint."""

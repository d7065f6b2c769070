"""The channels of Switchboard, one folder each."""

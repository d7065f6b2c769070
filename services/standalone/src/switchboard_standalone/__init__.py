"""The switchboard command: every service and its infrastructure on one machine."""

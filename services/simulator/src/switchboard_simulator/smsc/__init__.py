"""The SMSC: a real SMPP 3.4 server with receipts, inbound messages and faults on demand."""

"""The SMS channel over SMPP 3.4."""

"""HTTP out: the client the host makes once and hands in, and the guarded one for URLs that users supply."""

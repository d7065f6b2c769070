"""Facts in PostgreSQL: the pool, the migrations, and the guarded batch transitions of messages."""

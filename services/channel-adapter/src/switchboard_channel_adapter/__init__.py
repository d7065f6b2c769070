"""Claims attempts and submits them to providers; takes receipts and inbound."""

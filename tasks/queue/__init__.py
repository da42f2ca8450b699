"""Celery over Redis: it delivers chunk ids, and live tokens to pages. The ledger decides."""

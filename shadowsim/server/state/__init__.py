"""Keeps the account: events in SQLite, and the resources folded from them."""

"""Backups by tag: what is backed up, copied and deleted, decided by pure functions over plain values."""

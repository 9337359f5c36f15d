"""Verifying archives: stored hashes, all or a sample, and the contents against a snapshot or another archive."""

"""Prices, and what the ways to copy and to keep a snapshot cost."""

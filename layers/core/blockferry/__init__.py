"""Blockferry: ferries EBS snapshots, block by block, and proves what it moved."""

from __future__ import annotations

__version__ = "0.1.0"

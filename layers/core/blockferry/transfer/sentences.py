"""Facts of a job as sentences: in its report, in the question that a plan asks, and on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.core.words import counted
from blockferry.cost.bill import usd


def source_line(receipt: Mapping[str, Any]) -> str:
    """What was read, in one line."""
    source = receipt["source"]
    if "image_uri" in source:
        return f"image {source['image_uri']} ({_image_size(source)})"
    if source.get("base_snapshot_id"):
        return f"changes from {source['base_snapshot_id']} to {source['snapshot_id']} in {source['region']}"
    return f"{source.get('snapshot_id') or source['name']} in {source['region']}"


def holes_line(receipt: Mapping[str, Any]) -> str:
    """What was done about holes and zeros, and why, in one line."""
    taken = {
        "none": "the source has none",
        "noise": "taken for what nobody wrote",
        "zeros": "taken for zeros that somebody wrote",
        "unknown": "what they stand for is not known",
    }[receipt["holes_taken_for"]]
    by = "as the request says" if receipt["holes_decided_by"] == "request" else "by default"
    return f"{receipt['holes']}, {by}; {taken}: {receipt['holes_reason']}"


def choice_line(choice: Mapping[str, Any]) -> str:
    """What one policy for holes would write and cost, in one line."""
    name = choice["holes"] or "no --holes"
    if not choice["possible"]:
        return f"{name}: not possible here"
    if choice["blocks_written"] is None:
        return f"{name}: {choice['blocks_written_from']}"
    most = "at most " if choice["blocks_written_from"].endswith("at most") else ""
    text = f"{name}: {most}{counted(choice['blocks_written'], 'block')}, {usd(choice['usd_once'])} once"
    text += f" and {usd(choice['usd_a_month'])} a month to keep"
    return text + (" (chosen)" if choice["chosen"] else "")


def cost_line(cost: Mapping[str, Any]) -> str:
    """What a job costs or has cost, with what is in that and what is not, in one line."""
    return f"{usd(cost['total'])}; {cost['basis']}"


def _image_size(source: Mapping[str, Any]) -> str:
    if source["codec"] == "raw":
        return f"raw, {source['image_bytes']} bytes"
    unpacked = f"{source['image_bytes']} bytes unpacked" if source["image_bytes"] else "not unpacked yet"
    return f"{source['codec']}, {source['object_bytes']} bytes, {unpacked}"

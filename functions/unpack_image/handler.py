"""Unpack image: decompress a disk image into pieces that can be read side by side; says where to go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.lambdas import Context, call_again, done, memory_gb, progress_of, resources, seconds_left, traced
from blockferry.transfer.unpack import unpack


@traced
def handler(event: Mapping[str, Any], context: Context) -> dict[str, Any]:
    aws, workspace = resources(event["job_id"])
    unpacked = unpack(
        job_id=event["job_id"],
        progress=progress_of(event),
        seconds_left=seconds_left(context),
        memory_gb=memory_gb(),
        aws=aws,
        workspace=workspace,
    )
    return done(raw_bytes=unpacked["raw_bytes"]) if unpacked["done"] else call_again(unpacked["progress"])

"""Unpack image: decompress a disk image into pieces that can be read side by side; says where to go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.lambdas import Invocation, call_again, done, lambda_handler, progress_of
from blockferry.transfer.unpack import unpack


def step(event: Mapping[str, Any], invocation: Invocation) -> dict[str, Any]:
    unpacked = unpack(invocation.of(event), event["record"], progress_of(event))
    return done(raw_bytes=unpacked["raw_bytes"]) if unpacked["done"] else call_again(unpacked["progress"])


handler = lambda_handler(step)

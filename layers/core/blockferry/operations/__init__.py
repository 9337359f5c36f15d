"""The operations: what each one takes, which kinds of source and target it pairs, and which functions carry it out.

State machines, schemas, placeholders, the command line and the tests of Terraform and of the documentation read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from blockferry.core.errors import InvalidRequest
from blockferry.operations.operation import Operation

if TYPE_CHECKING:
    from blockferry.operations import archive as archive
    from blockferry.operations import backup as backup
    from blockferry.operations import copy as copy
    from blockferry.operations import expire as expire
    from blockferry.operations import fanout as fanout
    from blockferry.operations import inspect as inspect
    from blockferry.operations import replicate as replicate
    from blockferry.operations import restore as restore
    from blockferry.operations import sync as sync
    from blockferry.operations import verify as verify
    from blockferry.transfer.pairing import Pairing

NAMES = ("copy", "sync", "fanout", "archive", "restore", "verify", "inspect", "backup", "replicate", "expire")
"""A module for each, with its ``OPERATION``."""


class _Table(Mapping[str, Operation]):
    """Loads the module of an operation when it is asked for: a function works for one of them, and what it imports is
    most of its cold start."""

    def __getitem__(self, name: str) -> Operation:
        if name not in NAMES:
            raise KeyError(name)
        operation: Operation = import_module(f"{__name__}.{name}").OPERATION
        return operation

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)


OPERATIONS: Mapping[str, Operation] = _Table()


def pairing_of(operation: str) -> Pairing[Any, Any]:
    """What a transfer pairs. Raises ``InvalidRequest`` for an operation that this version does not know, or none."""
    found = OPERATIONS.get(operation)
    if found is None or found.pairing is None:
        raise InvalidRequest(f"operation {operation} is no transfer of this version: deploy one that knows it")
    return found.pairing

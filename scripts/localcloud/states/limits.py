"""Quotas of Step Functions that executions can run into.

Source: Step Functions developer guide, "Step Functions service quotas".
"""

from __future__ import annotations

import json
from typing import Any, Final

from localcloud.states.errors import StateError

MAX_PAYLOAD_BYTES: Final = 256 * 1024
"""Bytes of the input or output of a task, state or execution, as UTF-8 JSON."""

MAX_VARIABLES_BYTES: Final = 10 * 1024 * 1024
"""Bytes of all variables of one execution together."""

MAX_DEFINITION_BYTES: Final = 1024 * 1024
MAX_HISTORY_EVENTS: Final = 25_000
MAX_REDRIVABLE_EVENTS: Final = 24_999
"""Events with which an execution has no room for ExecutionRedriven and one more."""

MAX_MAP_RUN_REDRIVES: Final = 1000
REDRIVE_DAYS: Final = 14
MAX_INLINE_CONCURRENCY: Final = 40
MAX_CHILDREN: Final = 10_000
"""Parallel child executions of one Map Run; also what MaxConcurrency 0 means."""

MAX_READ_ITEM_BYTES: Final = 8 * 1024 * 1024
"""Bytes of an item of a dataset, if an ItemSelector makes it small enough for a child's input."""

MAX_ITEMS: Final = 100_000_000
MAX_CSV_HEADER_BYTES: Final = 10 * 1024
MAX_RESULT_FILE_BYTES: Final = 5 * 1024**3
EXPRESS_SECONDS: Final = 300
MAX_SECONDS: Final = 99_999_999
MAX_NAME_LENGTH: Final = 80


def compact(value: Any) -> str:
    """``value`` as the JSON text whose bytes count against the payload quota."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def size_of(text: str) -> int:
    """Bytes of ``text`` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def checked_payload(value: Any, *, what: str) -> str:
    """``value`` as JSON text; raises ``States.DataLimitExceeded`` if it is bigger than a payload may be."""
    text = compact(value)
    if size_of(text) > MAX_PAYLOAD_BYTES:
        raise StateError(
            "States.DataLimitExceeded",
            f"{what} has a size exceeding the maximum number of bytes service limit.",
        )
    return text

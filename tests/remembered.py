"""Answers of botocore and moto that depend on nothing but the question, remembered.

They are asked with each of some hundred thousand requests of the tests, and worked out anew each time: the same words
made fit for a user agent, the same time of day parsed, the same table of a service's errors built.
"""

from __future__ import annotations

from functools import lru_cache

import botocore.parsers
import botocore.useragent
from moto.core.errors import ErrorLookupFactory


def remember() -> None:
    """Let these functions work out an answer once."""
    for module, name in (
        (botocore.useragent, "sanitize_user_agent_string_component"),
        (botocore.parsers, "DEFAULT_TIMESTAMP_PARSER"),
    ):
        setattr(module, name, lru_cache(4_096)(getattr(module, name)))
    tables = ErrorLookupFactory()
    by_model = lru_cache(64)(ErrorLookupFactory.for_service)
    setattr(ErrorLookupFactory, "for_service", lambda _self, model: by_model(tables, model))  # noqa: B010

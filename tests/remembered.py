"""Answers of botocore and moto that depend on nothing but the question, remembered.

They are asked with each of some hundred thousand requests of the tests, or with each of some thousand clients, and
worked out anew each time: the same words made fit for a user agent, the same time of day parsed, the same table of a
service's errors built, the same method made for each of the seven hundred operations of EC2.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import botocore.client
import botocore.hooks
import botocore.parsers
import botocore.useragent
from botocore.utils import EVENT_ALIASES
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
    _remember_models(botocore.client.ClientCreator)
    _remember_aliases(botocore.hooks.EventAliaser)
    _remember_handlers(botocore.hooks)


def _remember_models(creator: Any) -> None:
    """All clients of a loader share the model of their service, as they share the file it was read from, and so the
    methods that are made of it alone."""
    load, make = creator._load_service_model, creator._create_methods
    loaded: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()

    def load_once(self: Any, service_name: str, api_version: str | None = None) -> Any:
        models = loaded.setdefault(self._loader, {})
        key = (service_name, api_version)
        if key not in models:
            models[key] = load(self, service_name, api_version)
        return models[key]

    def make_once(self: Any, service_model: Any) -> dict[str, Any]:
        if not hasattr(service_model, "methods_made"):
            service_model.methods_made = make(self, service_model)
        return dict(service_model.methods_made)

    creator._load_service_model, creator._create_methods = load_once, make_once


def _remember_aliases(aliaser: Any) -> None:
    """What an event is called does not depend on who emits it."""
    start = aliaser.__init__
    names: dict[str, str] = {}

    def start_with_names(self: Any, event_emitter: Any, event_aliases: Any = None) -> None:
        start(self, event_emitter, event_aliases)
        if self._event_aliases == EVENT_ALIASES:
            self._alias_name_cache = names

    aliaser.__init__ = start_with_names


def _remember_handlers(hooks: Any) -> None:
    """botocore's own functions take what they take, in every session that registers them."""
    look: Callable[[Any], Any] = hooks.accepts_kwargs
    look_once = lru_cache(1_024)(look)

    def accepts_kwargs(handler: Any) -> Any:
        lasting = inspect.isfunction(handler) and handler.__module__.startswith("botocore.") and not handler.__closure__
        return (look_once if lasting else look)(handler)

    hooks.accepts_kwargs = accepts_kwargs

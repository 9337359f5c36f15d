"""What a deployment says about backups by tag, as Terraform hands it to the functions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from blockferry.core.errors import InvalidRequest
from blockferry.lifecycle.expiring import Rules
from blockferry.lifecycle.replicating import Destination
from blockferry.lifecycle.retention import NotARetention, Retention
from blockferry.lifecycle.schedule import WEEKDAYS, Schedule
from blockferry.lifecycle.tags import TagNames

VARIABLE = "BLOCKFERRY_BACKUPS"
"""The variable of a function's environment that holds them as JSON."""

FALLBACK_DAYS = 7


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DestinationSettings(_Model):
    """A place for copies that is more than a Region: another key, or another retention."""

    region: str
    kms_key_arn: str | None = None
    retention: str | None = None


class Settings(_Model):
    """See the variable ``backups`` of ``terraform/modules/region``."""

    times: tuple[str, ...] = ("01:00",)
    weekdays: tuple[str, ...] = WEEKDAYS
    time_zone: str = "UTC"
    retention: str = "7d"
    keep_newest: Annotated[int, Field(ge=0, le=1_000)] = 1
    act_at_once: bool = False
    allow_as_of: bool = False
    tag_names: Mapping[str, str] = Field(default_factory=dict)
    destinations: Mapping[str, DestinationSettings] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _can_be_used(self) -> Self:
        TagNames(**self.tag_names)
        self.schedule  # noqa: B018 (raises for one that has no instant)
        for value in (self.retention, *(each.retention for each in self.destinations.values() if each.retention)):
            try:
                Retention.read(value, default_days=FALLBACK_DAYS)
            except NotARetention as error:
                raise ValueError(f"retention {value!r}: {error}") from error
        return self

    @property
    def names(self) -> TagNames:
        return TagNames(**self.tag_names)

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.times, self.weekdays, self.time_zone)

    @property
    def default_retention(self) -> Retention:
        return Retention.read(self.retention, default_days=FALLBACK_DAYS)

    @property
    def rules(self) -> Rules:
        return Rules(
            names=self.names,
            retention=self.default_retention,
            keep_newest=self.keep_newest,
            at_once=self.act_at_once,
        )

    def destination(self, name: str) -> Destination:
        """A destination by its name; a name that is not defined is that of a Region."""
        found = self.destinations.get(name)
        if found is None:
            return Destination(name=name, region=name)
        kept = Retention.read(found.retention, default_days=FALLBACK_DAYS) if found.retention else None
        return Destination(name=name, region=found.region, retention=kept)

    def now(self, as_of: str | None, started_at: str) -> datetime:
        """The instant that a run goes by: that of its start, or the one it is told, in UTC.

        Raises ``InvalidRequest`` where the deployment does not allow another one.
        """
        if as_of is None:
            return datetime.fromisoformat(started_at).astimezone(UTC)
        if not self.allow_as_of:
            raise InvalidRequest(
                "as_of is not allowed in this deployment: leave it out, or set backups.allow_as_of in Terraform, which "
                "lets whoever starts runs say what day it is"
            )
        return datetime.fromisoformat(as_of).astimezone(UTC)


def settings_of_environment() -> Settings:
    """The settings of this function. Raises ``InvalidRequest`` for some that this version cannot use."""
    try:
        return Settings.model_validate_json(os.environ.get(VARIABLE) or "{}")
    except ValidationError as error:
        raise InvalidRequest(f"the deployment's settings of backups cannot be used: {error}") from error

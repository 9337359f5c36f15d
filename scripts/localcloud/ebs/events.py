"""EventBridge events of snapshots, in the shapes of the EBS user guide ("Amazon EventBridge events for EBS").

Delivery is best effort there, so losses, duplicates and delays can be asked for here.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Mapping
from typing import Any, Protocol

from localcloud.ebs.clock import Clock, Timers
from localcloud.ebs.config import EbsConfig
from localcloud.ebs.kms import partition_of
from localcloud.ebs.model import Snapshot

SNAPSHOT_NOTIFICATION = "EBS Snapshot Notification"
MULTI_VOLUME = "EBS Multi-Volume Snapshots Completion Status"
_SHAPES = ("region_as_account", "no_account", "full")


class EventSink(Protocol):
    def send(self, event: dict[str, Any]) -> None:
        """Take one event in EventBridge's own form; must not block and must not raise."""


class KeptEvents:
    """Keeps what was sent, for tests and for a process without a main server."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def send(self, event: dict[str, Any]) -> None:
        self.events.append(event)


def iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class Events:
    """Builds events and hands them to ``sink`` as the configuration says."""

    def __init__(self, *, sink: EventSink, clock: Clock, timers: Timers, seed: int) -> None:
        self._sink = sink
        self._clock = clock
        self._timers = timers
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._emitted = 0

    def snapshot_arn(self, config: EbsConfig, *, region: str, account: str, resource: str) -> str:
        """The ARN in one of the three shapes that the guide shows; ``rotate`` goes through them event by event."""
        shape = config.event_arn if config.event_arn != "rotate" else _SHAPES[self._emitted % len(_SHAPES)]
        scope = {
            "region_as_account": f":{region}",
            "no_account": f"{region}:",
            "full": f"{region}:{account}",
        }[shape]
        return f"arn:{partition_of(region)}:ec2:{scope}:{resource}"

    def notify(
        self,
        config: EbsConfig,
        snapshot: Snapshot,
        *,
        event: str,
        result: str,
        cause: str = "",
        account: str | None = None,
        source: str | None = None,
        extra: Mapping[str, Any] | None = None,
        end: float | None = None,
    ) -> None:
        """An "EBS Snapshot Notification"; ``source`` is a resource such as ``volume/vol-..``."""
        about = {"region": snapshot.region, "account": snapshot.owner}
        arn = self.snapshot_arn(config, resource=f"snapshot/{snapshot.snapshot_id}", **about)
        ended = end if end is not None else (snapshot.completion_time or self._clock.now())
        detail: dict[str, Any] = {
            "event": event,
            "result": result,
            "cause": cause,
            "request-id": "",
            "snapshot_id": arn,
            "startTime": iso(snapshot.start_time),
            "endTime": iso(ended),
        }
        if source is not None:
            detail["source"] = self.snapshot_arn(config, resource=source, **about)
        detail.update(extra or {})
        self.emit(
            config,
            detail_type=SNAPSHOT_NOTIFICATION,
            account=account or snapshot.owner,
            region=snapshot.region,
            resources=[arn],
            detail=detail,
        )

    def emit(
        self,
        config: EbsConfig,
        *,
        detail_type: str,
        account: str,
        region: str,
        resources: list[str],
        detail: dict[str, Any],
    ) -> None:
        self._emitted += 1
        if not config.events_enabled:
            return
        event = {
            "version": "0",
            "id": str(uuid.UUID(int=self._random.getrandbits(128), version=4)),
            "detail-type": detail_type,
            "source": "aws.ec2",
            "account": account,
            "time": iso(self._clock.now()),
            "region": region,
            "resources": resources,
            "detail": detail,
        }
        if self._random.random() < config.event_loss_probability:
            return
        copies = 2 if self._random.random() < config.event_duplicate_probability else 1
        for _copy in range(copies):
            if config.event_delay_seconds:
                due = self._clock.now() + config.event_delay_seconds
                self._timers.at(due, lambda: self._sink.send(event))
            else:
                self._sink.send(event)

"""Everything about the EBS part that a test may want otherwise, with faithful defaults.

A field marked [unverified] stands for behaviour that AWS does not document; the default is the most
plausible one, the toggle lets a test show that a client survives the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

from localcloud.ebs.faults import Rule

HIGH_QUOTA_REGIONS = ("us-east-1", "us-east-2", "us-west-2", "ap-southeast-1", "eu-west-1")
"""Regions with 5,000 Get/PutSnapshotBlock per second and account (EBS user guide, quotas)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EbsConfig:
    # -- quotas (EBS user guide, "Quotas for Amazon EBS"); requests per second ---
    quotas_enabled: bool = True
    get_per_account: float | None = None  # None: 5,000 in HIGH_QUOTA_REGIONS, 1,000 elsewhere
    put_per_account: float | None = None  # the same
    get_per_snapshot: float = 1000.0
    put_per_snapshot: float = 1000.0
    list_snapshot_blocks_per_account: float = 50.0
    list_changed_blocks_per_account: float = 50.0
    start_per_account: float = 10.0
    complete_per_account: float = 10.0
    pending_snapshots: int = 100
    concurrent_copies: int = 20

    # -- time, in seconds ---------------------------------------------------------
    seal_seconds: float = 0.5  # CompleteSnapshot -> completed
    volume_snapshot_seconds: float = 0.5  # CreateSnapshot -> completed
    copy_seconds: float = 1.0  # CopySnapshot -> completed
    tier_seconds: float = 1.0  # ModifySnapshotTier and RestoreSnapshotTier
    not_found_window_seconds: float = 0.0  # PutSnapshotBlock and CompleteSnapshot right after StartSnapshot
    tag_spread_seconds: float = 0.0  # [unverified] so long policies do not see a new snapshot's tags when it is written
    describe_not_found_window_seconds: float = 0.0  # EC2 actions naming the new snapshot
    block_token_seconds: float = 7 * 86400.0
    page_token_seconds: float = 3600.0
    client_token_seconds: float = 86400.0  # [unverified] how long a ClientToken is remembered
    body_timeout_seconds: float = 60.0  # [unverified] a request body that stalls: WRITE_REQUEST_TIMEOUT
    latency_ms: float = 0.0  # added to every EBS direct request

    # -- listing ------------------------------------------------------------------
    default_max_results: int = 10000  # [unverified]
    relist_invalidates: Literal["never", "new_listing", "every_request"] = "never"  # [unverified]
    empty_page_every: int = 0  # every n-th page is empty with a NextToken; 0: only where the window is
    short_page_every: int = 0  # every n-th page scans half its window; 0: never
    trailing_empty_page: bool = False  # the end is told by one more, empty page
    listed_volume_size: Literal["gib", "bytes"] = "gib"  # the guide's examples have both
    copies_related: bool = True  # [unverified] copies of one lineage to one place form a lineage

    describe_stale_seconds: float = 0.0  # [unverified] so long every second look may show pending again

    # -- access -------------------------------------------------------------------
    unshared_snapshot: Literal["access_denied", "not_found"] = "access_denied"  # [unverified]
    shared_parent: Literal["refuse", "allow"] = "refuse"  # [unverified]
    smaller_than_parent: Literal["refuse", "allow"] = "refuse"  # [unverified]
    kms_with_unencrypted_parent: Literal["refuse", "ignore"] = "refuse"  # [unverified]
    key_without_encrypted: Literal["refuse", "encrypt", "ignore"] = "refuse"  # [unverified] no default encryption
    check_key_on_read: bool = True  # reading needs kms:Decrypt: a disabled key refuses
    missing_copy_source: Literal["error_state", "refuse"] = "error_state"  # [unverified]
    silent_kms_failure: bool = True  # CopySnapshot accepts a bad key and then goes to error

    # -- writing ------------------------------------------------------------------
    complete_mismatch: Literal["error_state", "refuse"] = "error_state"  # [unverified]
    too_many_pending: Literal["concurrent_limit", "service_quota"] = "concurrent_limit"  # [unverified]
    complete_again: Literal["accept", "refuse"] = "accept"  # [unverified] the same arguments once more
    checksum_of_nothing: Literal["refuse", "accept"] = "refuse"  # [unverified] a checksum over 0 blocks
    conflicting_put: Literal["refuse", "last_wins"] = "refuse"  # [unverified]
    put_progress_shows: bool = True  # [unverified] x-amz-Progress is DescribeSnapshots' Progress
    direct_volume_id: str = "vol-ffffffff"

    # -- events -------------------------------------------------------------------
    events_enabled: bool = True
    direct_completion_event: bool = False  # [unverified] createSnapshot for CompleteSnapshot
    event_delay_seconds: float = 0.0
    event_duplicate_probability: float = 0.0
    event_loss_probability: float = 0.0
    event_arn: Literal["region_as_account", "no_account", "full", "rotate"] = "region_as_account"

    # -- signatures ---------------------------------------------------------------
    signature_clock_offset_seconds: float = 0.0  # how far AWS's clock is ahead of the machine's; may be negative

    # -- the rest -----------------------------------------------------------------
    snapshots_in_use: tuple[str, ...] = ()  # DeleteSnapshot refuses these as an AMI's
    seed: int = 0  # of ids, event losses and duplicates

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            may_be_negative = field.name == "signature_clock_offset_seconds"
            if isinstance(value, int | float) and not isinstance(value, bool) and value < 0 and not may_be_negative:
                raise ValueError(f"{field.name} must not be negative, got {value}")
        if self.empty_page_every == 1:
            raise ValueError("empty_page_every must not be 1: a listing would never end")

    def merged(self, changes: Mapping[str, Any]) -> EbsConfig:
        """This configuration with ``changes``; ``ValueError`` names an unknown field or a wrong value."""
        hints = get_type_hints(EbsConfig)
        unknown = sorted(set(changes) - set(hints))
        if unknown:
            raise ValueError(f"unknown ebs settings: {', '.join(unknown)}")
        return dataclasses.replace(
            self, **{name: _checked(name, value, hints[name]) for name, value in changes.items()}
        )

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def account_rate(self, configured: float | None, region: str) -> float:
        if configured is not None:
            return configured
        return 5000.0 if region in HIGH_QUOTA_REGIONS else 1000.0


def configured(part: Mapping[str, Any]) -> tuple[EbsConfig, list[Rule]]:
    """Settings and ``faults`` of the config file's ``ebs`` part; ``ValueError`` names what is wrong."""
    settings = {name: value for name, value in part.items() if name != "faults"}
    return EbsConfig().merged(settings), Rule.parse_all(part.get("faults", []))


def _checked(name: str, value: Any, hint: Any) -> Any:
    if hint is bool and isinstance(value, bool):
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int and number and int(value) == value:
        return int(value)
    if hint is float and number:
        return float(value)
    if hint == float | None and (value is None or number):
        return None if value is None else float(value)
    if hint is str and isinstance(value, str):
        return value
    if hint == tuple[str, ...] and isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
        return tuple(value)
    choices = get_args(hint)
    if choices and value in choices and isinstance(value, str):
        return value
    raise ValueError(f"{name}: {value!r} does not fit{f', one of {choices}' if choices else ''} ({hint})")

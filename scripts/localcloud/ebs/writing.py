"""StartSnapshot, PutSnapshotBlock, CompleteSnapshot.

Shapes, bounds, statuses: botocore ebs/2019-11-02 service-2.json. Semantics: EBS user guide, "Write
snapshots with EBS direct APIs", "Idempotency", "Use checksums".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from typing import Any

from localcloud.ebs import access, encryption
from localcloud.ebs.blockstore import BLOCK_SIZE
from localcloud.ebs.errors import (
    account_throttled,
    client_token_conflict,
    invalid,
    invalid_parameter,
    snapshot_not_found,
    snapshot_throttled,
    too_many_pending,
)
from localcloud.ebs.messages import Request, Response, json_response
from localcloud.ebs.model import MAX_VOLUME_GIB, Encryption, Snapshot
from localcloud.ebs.permissions import Permissions
from localcloud.ebs.registry import Registry

_CLIENT_TOKEN = re.compile(r"[!-~]{1,64}")  # the guide's 64 ASCII characters, tighter than the model's 255


class Writing:
    def __init__(self, registry: Registry, permissions: Permissions) -> None:
        self._registry = registry
        self._permissions = permissions
        self._replays: dict[tuple[str, str, str], tuple[float, str, dict[str, Any]]] = {}
        self._in_flight: dict[tuple[str, int], list[bytes]] = {}

    # -- StartSnapshot -----------------------------------------------------------

    def start(self, request: Request, *, instead: Encryption | None = None) -> Response:
        """Serve StartSnapshot. ``instead`` is a fault: what the new snapshot is encrypted with in place of what it
        should be."""
        registry, config = self._registry, self._registry.config
        if config.quotas_enabled and not registry.limits.take(
            ("StartSnapshot", request.account, request.region), config.start_per_account
        ):
            raise account_throttled("StartSnapshot")
        wanted = _start_parameters(request.body)
        token = wanted.pop("ClientToken", None)
        fingerprint = json.dumps(wanted, sort_keys=True)
        with registry.lock:
            replay = self._replay(request, token, fingerprint)
            parent = None if replay is not None else self._parent(request, wanted)
        if replay is not None:
            return json_response(201, replay)
        # Without the lock, since the key may have to be asked for in another process.
        outcome = encryption.for_new_snapshot(
            encrypted=wanted.get("Encrypted"),
            kms_key_arn=wanted.get("KmsKeyArn"),
            parent=parent.encryption if parent else None,
            settings=registry.settings(request.account, request.region),
            keys=registry.keys,
            config=config,
            account=request.account,
            region=request.region,
        )
        self._permissions.check_new_key(request, outcome.kms_key_arn)
        outcome = instead or outcome
        with registry.lock:
            replay = self._replay(request, token, fingerprint)  # of a request that came at the same time
            if replay is not None:
                return json_response(201, replay)
            answer = self._start(request, wanted, self._parent(request, wanted), outcome)
            if token is not None:
                expires = registry.clock.now() + config.client_token_seconds
                self._replays[(request.account, request.region, token)] = (expires, fingerprint, answer)
        return json_response(201, answer)

    def _replay(self, request: Request, token: str | None, fingerprint: str) -> dict[str, Any] | None:
        known = self._replays.get((request.account, request.region, token or ""))
        if known is None or self._registry.clock.now() >= known[0]:
            return None
        if known[1] != fingerprint:
            raise client_token_conflict()
        return known[2]

    def _parent(self, request: Request, wanted: dict[str, Any]) -> Snapshot | None:
        if "ParentSnapshotId" not in wanted:
            return None
        registry = self._registry
        parent = access.parent(registry, wanted["ParentSnapshotId"], account=request.account, region=request.region)
        if wanted["VolumeSize"] < parent.volume_gib and registry.config.smaller_than_parent == "refuse":
            raise invalid("INVALID_VOLUME_SIZE", f"VolumeSize is smaller than the parent's {parent.volume_gib} GiB.")
        return parent

    def _start(
        self, request: Request, wanted: dict[str, Any], parent: Snapshot | None, outcome: Encryption
    ) -> dict[str, Any]:
        registry, config = self._registry, self._registry.config
        account, region = request.account, request.region
        pending = sum(s.state == "pending" and s.origin == "direct" for s in registry.in_account(account, region))
        if config.quotas_enabled and pending >= config.pending_snapshots:
            raise too_many_pending(config.pending_snapshots, as_quota=config.too_many_pending == "service_quota")
        now = registry.clock.now()
        blocks = parent.blocks.copy() if parent else registry.new_map()
        snapshot = registry.add(
            Snapshot(
                snapshot_id=registry.new_id("snap"),
                owner=account,
                region=region,
                origin="direct",
                volume_id=config.direct_volume_id,
                volume_gib=wanted["VolumeSize"],
                start_time=now,
                encryption=outcome,
                lineage=parent.lineage if parent else registry.new_lineage(),
                blocks=blocks,
                written=registry.new_map() if parent else blocks,
                parent_id=parent.snapshot_id if parent else None,
                description=wanted.get("Description", ""),
                tags=dict(wanted.get("Tags", {})),
                timeout_seconds=wanted["Timeout"] * 60.0,
                last_activity=now,
            )
        )
        self._watch_timeout(snapshot)
        answer: dict[str, Any] = {
            "SnapshotId": snapshot.snapshot_id,
            "OwnerId": account,
            "Status": "pending",
            "StartTime": now,
            "VolumeSize": snapshot.volume_gib,
            "BlockSize": BLOCK_SIZE,
            "Tags": [{"Key": key, "Value": value} for key, value in snapshot.tags.items()],
            "Description": snapshot.description,
            "ParentSnapshotId": snapshot.parent_id,
            "KmsKeyArn": outcome.kms_key_arn,
        }
        return {name: value for name, value in answer.items() if value not in (None, "", [])}

    def _watch_timeout(self, snapshot: Snapshot) -> None:
        """Let the snapshot's Timeout pass, which counts from the last block written (StartSnapshot reference)."""

        def expire() -> None:
            with self._registry.lock:
                if not self._registry.still_pending(snapshot) or snapshot.sealed_with is not None:
                    return
                if self._registry.clock.now() >= snapshot.last_activity + snapshot.timeout_seconds:
                    self._registry.fail(snapshot, "The snapshot was not completed within its timeout.")
                else:
                    self._watch_timeout(snapshot)

        self._registry.timers.at(snapshot.last_activity + snapshot.timeout_seconds, expire)

    # -- PutSnapshotBlock --------------------------------------------------------

    def put(self, request: Request, snapshot_id: str, index_text: str) -> Response:
        registry, config = self._registry, self._registry.config
        if config.quotas_enabled:
            self._take_put(request, snapshot_id)
        index = block_index(index_text)
        data, headers = request.body, request.headers
        if "content-encoding" in headers:
            raise invalid("INVALID_CONTENT_ENCODING", "The block data must not be encoded.")
        checksum, progress = _put_parameters(headers)
        with registry.lock:
            snapshot = access.writable(registry, snapshot_id, account=request.account, region=request.region)
            _refuse_sealed(snapshot)
        if index >= snapshot.block_limit:
            raise invalid("INVALID_BLOCK", f"Block {index} lies outside of {snapshot.volume_gib} GiB.")
        if len(data) != BLOCK_SIZE:
            raise invalid("INVALID_BLOCK", f"A block has {BLOCK_SIZE} bytes, the body has {len(data)}.")
        digest = hashlib.sha256(data).digest()
        if base64.b64encode(digest).decode() != checksum:
            raise invalid("INVALID_BLOCK", "The checksum does not match the block data.")
        self._enter(snapshot_id, index, digest)
        try:
            slot = registry.store.put(data, digest)
            with registry.lock:
                if snapshot.deleted or snapshot.state != "pending" or snapshot.sealed_with is not None:
                    registry.store.release(slot)
                    if snapshot.deleted:
                        raise snapshot_not_found(snapshot_id)
                    raise invalid("INVALID_SNAPSHOT_ID", f"'{snapshot_id}' is not written to any more.")
                if snapshot.written is not snapshot.blocks and snapshot.written is not None:
                    registry.store.retain(slot)
                    snapshot.written.assign(index, slot)
                snapshot.blocks.assign(index, slot)
                snapshot.last_activity = registry.clock.now()
                if progress is not None and config.put_progress_shows:
                    snapshot.progress = min(progress, 99)
        finally:
            self._leave(snapshot_id, index, digest)
        answer = json_response(201, {})
        answer.headers["x-amz-Checksum"] = checksum
        answer.headers["x-amz-Checksum-Algorithm"] = "SHA256"
        return answer

    def _take_put(self, request: Request, snapshot_id: str) -> None:
        registry, config = self._registry, self._registry.config
        rate = config.account_rate(config.put_per_account, request.region)
        if not registry.limits.take(("PutSnapshotBlock", request.account, request.region), rate):
            raise account_throttled("PutSnapshotBlock")
        if not registry.limits.take(("PutSnapshotBlock", snapshot_id), config.put_per_snapshot):
            raise snapshot_throttled("PutSnapshotBlock", snapshot_id)

    def _enter(self, snapshot_id: str, index: int, digest: bytes) -> None:
        with self._registry.lock:
            writers = self._in_flight.setdefault((snapshot_id, index), [])
            if self._registry.config.conflicting_put == "refuse" and any(d != digest for d in writers):
                raise invalid("CONFLICTING_BLOCK_UPDATE", f"Block {index} is being written with other data.")
            writers.append(digest)

    def _leave(self, snapshot_id: str, index: int, digest: bytes) -> None:
        with self._registry.lock:
            writers = self._in_flight[(snapshot_id, index)]
            writers.remove(digest)
            if not writers:
                del self._in_flight[(snapshot_id, index)]

    # -- CompleteSnapshot --------------------------------------------------------

    def complete(self, request: Request, snapshot_id: str) -> Response:
        registry, config = self._registry, self._registry.config
        if config.quotas_enabled and not registry.limits.take(
            ("CompleteSnapshot", request.account, request.region), config.complete_per_account
        ):
            raise account_throttled("CompleteSnapshot")
        count, checksum = _complete_parameters(request)
        if count == 0 and checksum is not None and config.checksum_of_nothing == "refuse":
            raise invalid_parameter("x-amz-Checksum cannot be given for a ChangedBlocksCount of 0.")
        with registry.lock:
            existing = registry.snapshot(snapshot_id, request.region)
            if existing is not None and existing.owner == request.account and existing.sealed_with is not None:
                if config.complete_again == "accept" and existing.sealed_with == (count, checksum):
                    return json_response(202, {"Status": existing.state})
                raise invalid("INVALID_SNAPSHOT_ID", f"'{snapshot_id}' was completed already.")
            snapshot = access.writable(registry, snapshot_id, account=request.account, region=request.region)
            assert snapshot.written is not None  # noqa: S101 - a pending snapshot of StartSnapshot has it
            snapshot.sealed_with = (count, checksum)  # from here on no block is taken
            written = snapshot.written.copy()
        actual = registry.linear_checksum(written)  # without the lock: it takes a while for a large volume
        wrong = ""
        if count != len(written):
            wrong = f"ChangedBlocksCount is {count}, {len(written)} blocks were written."
        elif checksum is not None and checksum != actual:
            wrong = "The aggregated checksum does not match the blocks written."
        with registry.lock:
            snapshot.changed_blocks_count, snapshot.linear_checksum = len(written), actual
            written.clear()
            if wrong and config.complete_mismatch == "refuse":
                snapshot.sealed_with = None
                raise invalid_parameter(wrong)
            due = registry.clock.now() + config.seal_seconds
            registry.timers.at(due, lambda: self._seal(snapshot, wrong))
        return json_response(202, {"Status": "pending"})

    def _seal(self, snapshot: Snapshot, wrong: str) -> None:
        registry = self._registry
        with registry.lock:
            if not registry.still_pending(snapshot):
                return
            if wrong:
                registry.fail(snapshot, wrong)
            else:
                registry.complete(snapshot)
        if registry.config.direct_completion_event:
            registry.events.notify(
                registry.config,
                snapshot,
                event="createSnapshot",
                result="failed" if wrong else "succeeded",
                cause=wrong,
                source=f"volume/{snapshot.volume_id}",
            )


def _refuse_sealed(snapshot: Snapshot) -> None:
    if snapshot.sealed_with is not None:
        raise invalid("INVALID_SNAPSHOT_ID", f"'{snapshot.snapshot_id}' is being completed.")


def block_index(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text):
        raise invalid("INVALID_BLOCK", f"'{text}' is not a block index.")
    return int(text)


def _put_parameters(headers: Any) -> tuple[str, int | None]:
    """The checksum, and the progress if one was sent."""
    if headers.get("x-amz-data-length") != str(BLOCK_SIZE):
        raise invalid_parameter(f"x-amz-Data-Length must be {BLOCK_SIZE}.")
    checksum = headers["x-amz-checksum"]
    if not _is_sha256(checksum):
        raise invalid_parameter("x-amz-Checksum must be a base64 SHA-256 digest.")
    progress = headers.get("x-amz-progress")
    return checksum, None if progress is None else int(progress)


def _is_sha256(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 32
    except (binascii.Error, ValueError):
        return False


def _complete_parameters(request: Request) -> tuple[int, str | None]:
    headers = request.headers
    count = headers.get("x-amz-changedblockscount", "")
    if not re.fullmatch(r"[0-9]{1,10}", count):
        raise invalid_parameter("x-amz-ChangedBlocksCount must be a number of blocks.")
    checksum = headers.get("x-amz-checksum")
    if checksum is None:
        return int(count), None
    if headers.get("x-amz-checksum-algorithm") != "SHA256":
        raise invalid_parameter("x-amz-Checksum-Algorithm must be SHA256.")
    if headers.get("x-amz-checksum-aggregation-method") != "LINEAR":
        raise invalid_parameter("x-amz-Checksum-Aggregation-Method must be LINEAR.")
    if not _is_sha256(checksum):
        raise invalid_parameter("x-amz-Checksum must be a base64 SHA-256 digest.")
    return int(count), checksum


def _start_parameters(body: bytes | bytearray) -> dict[str, Any]:
    """StartSnapshot's members, held to documented bounds that the model lacks; Tags as a dict, Timeout filled in."""
    wanted = {name: value for name, value in json.loads(bytes(body)).items() if value is not None}
    if wanted["VolumeSize"] > MAX_VOLUME_GIB:
        raise invalid("INVALID_VOLUME_SIZE", f"VolumeSize must be 1 to {MAX_VOLUME_GIB} GiB.")
    wanted.setdefault("Timeout", 60)
    token = wanted.get("ClientToken")
    if token is not None and not _CLIENT_TOKEN.fullmatch(token):
        raise invalid_parameter("ClientToken must be 1 to 64 printable ASCII characters.")
    wanted["Tags"] = _tags(wanted.get("Tags", []))
    return wanted


def _tags(given: list[dict[str, str]]) -> dict[str, str]:
    if len(given) > 50:
        raise invalid("INVALID_TAG", "Tags must be a list of at most 50.")
    tags: dict[str, str] = {}
    for tag in given:
        key = tag.get("Key", "")
        if not key or key.startswith("aws:") or key in tags:
            raise invalid("INVALID_TAG", f"The tag key '{key}' is empty, reserved or given twice.")
        tags[key] = tag.get("Value", "")
    return tags

"""The EBS part's own control endpoint, ``/_local/...``: JSON in, JSON out.

| request | does |
|---|---|
| GET /_local/health | ``{"status": "ok"}`` |
| GET, POST /_local/config | the settings of ``config.EbsConfig``; POST changes those given |
| GET /_local/clock, POST {"advance": seconds} | the clock; what becomes due happens before the answer |
| GET, POST, DELETE /_local/faults, DELETE /_local/faults/{id} | rules as in ``faults`` |
| GET /_local/stats, POST /_local/stats/reset | counts per operation, snapshot and error |
| GET /_local/snapshots[/{id}] | full metadata of every account and Region |
| GET /_local/snapshots/{id}/raw-index | ``{"blocks": [[index, sha256 hex], ..]}`` |
| GET, POST /_local/volumes | volumes; POST takes one on that was made elsewhere |
| DELETE /_local/volumes/{id} | forget a volume and its data |
| POST /_local/decisions/forget | ask anew what callers' policies allow: some have changed |
| POST, DELETE, GET /_local/volumes/{id}/blocks/{index} | write (raw 512 KiB body), de-allocate, read a block |
| POST /_local/volumes/{id}/fill | many pattern blocks at once, see ``patterns`` |
| GET /_local/volumes/{id}/raw-index | as for snapshots |
| POST /_local/reset | forget snapshots, volumes, settings of accounts, faults and counts |
| GET /_local/store | distinct blocks, bytes on disk, bytes of tables in memory |
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from localcloud.ebs.blockstore import BLOCK_SIZE
from localcloud.ebs.faults import Rule
from localcloud.ebs.messages import Request, Response, json_response
from localcloud.ebs.model import UNENCRYPTED, Encryption, Snapshot, Volume
from localcloud.ebs.noise import hole
from localcloud.ebs.patterns import fill

if TYPE_CHECKING:
    from localcloud.ebs.service import EbsService


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def handle(service: EbsService, request: Request) -> Response:
    """Answer a control request: 400 for a wrong body, 404 for an unknown path or name."""
    for method, pattern, action in _ROUTES:
        if request.method == method and (match := re.fullmatch(pattern, request.path)):
            try:
                return action(service, request, *match.groups())
            except ValueError as error:
                return json_response(400, {"message": str(error)})
            except _Refused as error:
                return json_response(error.status, {"message": str(error)})
            except Exception as error:  # the requester needs to see it, and the server has to go on
                traceback.print_exc(file=sys.stderr)
                return json_response(500, {"message": f"{type(error).__name__}: {error}"})
    return json_response(404, {"message": f"no control path {request.method} {request.path}"})


def _json(request: Request) -> Any:
    try:
        return json.loads(bytes(request.body) or b"{}")
    except ValueError as error:
        raise ValueError(f"the body is not JSON: {error}") from error


def _object(request: Request) -> Mapping[str, Any]:
    given = _json(request)
    if not isinstance(given, dict):
        raise ValueError("the body must be a JSON object")
    return given


def _health(service: EbsService, request: Request) -> Response:
    return json_response(200, {"status": "ok"})


def _forget_decisions(service: EbsService, request: Request) -> Response:
    service.permissions.decisions.forget()
    return json_response(200, {})


def _get_config(service: EbsService, request: Request) -> Response:
    return json_response(200, service.config.as_dict())


def _post_config(service: EbsService, request: Request) -> Response:
    return json_response(200, service.configure(_object(request)).as_dict())


def _get_clock(service: EbsService, request: Request) -> Response:
    return json_response(200, {"now": service.clock.now()})


def _post_clock(service: EbsService, request: Request) -> Response:
    seconds = _object(request).get("advance")
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise ValueError('the body must be {"advance": seconds}')
    service.clock.advance(seconds)
    service.tick()
    return _get_clock(service, request)


def _get_faults(service: EbsService, request: Request) -> Response:
    return json_response(200, {"rules": service.faults.listed()})


def _post_faults(service: EbsService, request: Request) -> Response:
    given = _json(request)
    rules = [service.faults.checked(Rule.parse(each)) for each in (given if isinstance(given, list) else [given])]
    return json_response(200, {"ids": [service.faults.add(rule) for rule in rules]})


def _delete_faults(service: EbsService, request: Request, number: str | None = None) -> Response:
    service.faults.clear(int(number) if number else None)
    return _get_faults(service, request)


def _get_stats(service: EbsService, request: Request) -> Response:
    return json_response(200, service.stats.as_dict())


def _reset_stats(service: EbsService, request: Request) -> Response:
    service.stats.reset()
    return _get_stats(service, request)


def _snapshot(service: EbsService, snapshot_id: str) -> Snapshot:
    found = service.registry.snapshots.get(snapshot_id)
    if found is None:
        raise _Refused(404, f"no snapshot {snapshot_id}")
    return found


def _snapshot_facts(service: EbsService, snapshot: Snapshot) -> dict[str, Any]:
    registry = service.registry
    pending = snapshot.written if snapshot.written is not None else None
    return {
        "snapshot_id": snapshot.snapshot_id,
        "owner": snapshot.owner,
        "region": snapshot.region,
        "origin": snapshot.origin,
        "state": snapshot.state,
        "state_message": snapshot.state_message,
        "volume_id": snapshot.volume_id,
        "volume_size": snapshot.volume_gib,
        "parent_id": snapshot.parent_id,
        "source_snapshot_id": snapshot.source_snapshot_id,
        "source_region": snapshot.source_region,
        "incremental": snapshot.incremental,
        "lineage": snapshot.lineage,
        "description": snapshot.description,
        "tags": snapshot.tags,
        "encrypted": snapshot.encryption.encrypted,
        "kms_key_arn": snapshot.encryption.kms_key_arn,
        "data_encryption_key_id": registry.data_key_id(snapshot),
        "start_time": snapshot.start_time,
        "completion_time": snapshot.completion_time,
        "progress": snapshot.progress,
        "storage_tier": snapshot.storage_tier,
        "shared_with": sorted(snapshot.shared_with),
        "public": snapshot.public,
        "allocated_blocks": len(snapshot.blocks),
        "written_blocks": len(pending) if pending is not None else snapshot.changed_blocks_count,
        "linear_checksum": registry.linear_checksum(snapshot.blocks),
        "written_linear_checksum": (
            registry.linear_checksum(pending) if pending is not None else snapshot.linear_checksum
        ),
    }


def _get_snapshots(service: EbsService, request: Request) -> Response:
    with service.registry.lock:
        found = [_snapshot_facts(service, snapshot) for snapshot in service.registry.snapshots.values()]
    return json_response(200, {"snapshots": found})


def _get_snapshot(service: EbsService, request: Request, snapshot_id: str) -> Response:
    with service.registry.lock:
        return json_response(200, _snapshot_facts(service, _snapshot(service, snapshot_id)))


def _raw_index(service: EbsService, request: Request, kind: str, resource_id: str) -> Response:
    with service.registry.lock:
        holder = _snapshot(service, resource_id) if kind == "snapshots" else _volume(service, resource_id)
        found = [[index, service.store.digest(slot).hex()] for index, slot in holder.blocks.allocated()]
    return json_response(200, {"blocks": found})


def _volume(service: EbsService, volume_id: str) -> Volume:
    found = service.registry.volumes.get(volume_id)
    if found is None:
        raise _Refused(404, f"no volume {volume_id}")
    return found


def _volume_facts(volume: Volume) -> dict[str, Any]:
    return {
        "volume_id": volume.volume_id,
        "owner": volume.owner,
        "region": volume.region,
        "size": volume.size_gib,
        "snapshot_id": volume.snapshot_id,
        "encrypted": volume.encryption.encrypted,
        "kms_key_arn": volume.encryption.kms_key_arn,
        "instance_id": volume.instance_id,
        "allocated_blocks": len(volume.blocks),
    }


def _get_volumes(service: EbsService, request: Request) -> Response:
    with service.registry.lock:
        return json_response(200, {"volumes": [_volume_facts(volume) for volume in service.registry.volumes.values()]})


def _post_volume(service: EbsService, request: Request) -> Response:
    """Take on a volume that was made elsewhere. The body: ``{"volume_id", "owner", "region", "size", "zone"?,
    "kms_key_arn"?, "instance_id"?, "device"?, "tags"?}``.

    Of a volume that is known already only ``instance_id``, ``device``, ``size`` and ``tags`` are taken over.
    """
    given = _object(request)
    registry = service.registry
    with registry.lock:
        known = registry.volumes.get(str(given.get("volume_id")))
        if known is not None:
            known.instance_id = given.get("instance_id", known.instance_id)
            known.device = given.get("device", known.device)
            known.tags = dict(given.get("tags", known.tags))
            known.size_gib = max(known.size_gib, int(given.get("size", 0)))
            return json_response(200, _volume_facts(known))
        for name in ("volume_id", "owner", "region"):
            if not isinstance(given.get(name), str):
                raise ValueError(f"{name} must be a text")
        size = given.get("size")
        if not isinstance(size, int) or size < 1:
            raise ValueError("size must be a number of GiB")
        key = given.get("kms_key_arn")
        volume = Volume(
            volume_id=given["volume_id"],
            owner=given["owner"],
            region=given["region"],
            size_gib=size,
            zone=str(given.get("zone", f"{given['region']}a")),
            created=registry.clock.now(),
            encryption=Encryption(kms_key_arn=key) if key else UNENCRYPTED,
            lineage=registry.new_lineage(),
            blocks=registry.new_map(),
            instance_id=given.get("instance_id"),
            device=given.get("device"),
            tags=dict(given.get("tags", {})),
        )
        registry.volumes[volume.volume_id] = volume
    return json_response(200, _volume_facts(volume))


def _delete_volume(service: EbsService, request: Request, volume_id: str) -> Response:
    with service.registry.lock:
        volume = _volume(service, volume_id)
        del service.registry.volumes[volume_id]
        volume.blocks.clear()
    return json_response(200, {})


def _block_of(volume: Volume, index_text: str) -> int:
    index = int(index_text)
    if index >= volume.block_limit:
        raise ValueError(f"block {index} lies outside of the volume's {volume.size_gib} GiB")
    return index


def _write_volume_block(service: EbsService, request: Request, volume_id: str, index_text: str) -> Response:
    if len(request.body) != BLOCK_SIZE:
        raise ValueError(f"the body must be one block of {BLOCK_SIZE} bytes")
    digest = hashlib.sha256(request.body).digest()
    index = _block_of(_volume(service, volume_id), index_text)
    slot = service.store.put(request.body, digest)
    with service.registry.lock:
        _volume(service, volume_id).blocks.assign(index, slot)
    return json_response(200, {"sha256": digest.hex()})


def _trim_volume_block(service: EbsService, request: Request, volume_id: str, index_text: str) -> Response:
    with service.registry.lock:
        volume = _volume(service, volume_id)
        return json_response(200, {"trimmed": volume.blocks.discard(_block_of(volume, index_text))})


def _read_volume_block(service: EbsService, request: Request, volume_id: str, index_text: str) -> Response:
    """The block's data; where the volume has none, zeros, or noise if it was made encrypted of a snapshot."""
    with service.registry.lock:
        volume = _volume(service, volume_id)
        index = _block_of(volume, index_text)
        slot = volume.blocks.get(index)
        if slot is None:
            data = hole(volume.encryption if volume.snapshot_id else UNENCRYPTED, index)
            return Response(200, {"Content-Type": "application/octet-stream"}, data)
        service.store.retain(slot)
    try:
        return Response(200, {"Content-Type": "application/octet-stream"}, service.store.read(slot))
    finally:
        service.store.release(slot)


def _fill_volume(service: EbsService, request: Request, volume_id: str) -> Response:
    """Write pattern blocks to a volume. The body: ``{"count", "seed"?, "start"?, "stride"?, "distinct"?,
    "zero_every"?}``; 16 distinct blocks by default."""
    wanted = {"seed": 0, "start": 0, "stride": 1, "distinct": 16, "zero_every": 0, **_object(request)}
    least = {"count": 1, "seed": 0, "start": 0, "stride": 1, "distinct": 1, "zero_every": 0}
    if set(wanted) != set(least):
        raise ValueError(f"the body must have count, and may have {', '.join(sorted(set(least) - {'count'}))}")
    for name, value in wanted.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least[name]:
            raise ValueError(f"{name} must be a number of at least {least[name]}")
    with service.registry.lock:
        volume = _volume(service, volume_id)
        _block_of(volume, str(wanted["start"] + (wanted["count"] - 1) * wanted["stride"]))
        fill(volume.blocks, service.store, **wanted)
        return json_response(200, _volume_facts(volume))


def _reset(service: EbsService, request: Request) -> Response:
    service.registry.reset()
    service.faults.clear()
    service.stats.reset()
    return _get_store(service, request)


def _get_store(service: EbsService, request: Request) -> Response:
    store = service.store
    return json_response(
        200,
        {"blocks": len(store), "disk_bytes": store.disk_bytes(), "memory_bytes": store.memory_bytes()},
    )


_Control = Callable[..., Response]
_VOLUME_BLOCK = r"/_local/volumes/([^/]+)/blocks/([0-9]{1,10})"
_ROUTES: tuple[tuple[str, str, _Control], ...] = (
    ("GET", "/_local/health", _health),
    ("POST", "/_local/decisions/forget", _forget_decisions),
    ("GET", "/_local/config", _get_config),
    ("POST", "/_local/config", _post_config),
    ("GET", "/_local/clock", _get_clock),
    ("POST", "/_local/clock", _post_clock),
    ("GET", "/_local/faults", _get_faults),
    ("POST", "/_local/faults", _post_faults),
    ("DELETE", "/_local/faults", _delete_faults),
    ("DELETE", "/_local/faults/([0-9]{1,9})", _delete_faults),
    ("GET", "/_local/stats", _get_stats),
    ("POST", "/_local/stats/reset", _reset_stats),
    ("GET", "/_local/snapshots", _get_snapshots),
    ("GET", "/_local/snapshots/([^/]+)", _get_snapshot),
    ("GET", "/_local/(snapshots|volumes)/([^/]+)/raw-index", _raw_index),
    ("GET", "/_local/volumes", _get_volumes),
    ("POST", "/_local/volumes", _post_volume),
    ("DELETE", "/_local/volumes/([^/]+)", _delete_volume),
    ("POST", _VOLUME_BLOCK, _write_volume_block),
    ("DELETE", _VOLUME_BLOCK, _trim_volume_block),
    ("GET", _VOLUME_BLOCK, _read_volume_block),
    ("POST", "/_local/volumes/([^/]+)/fill", _fill_volume),
    ("POST", "/_local/reset", _reset),
    ("GET", "/_local/store", _get_store),
)

"""Plan verification: open the archives, refuse what cannot be verified, cut the volume into ranges."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from blockferry.aws.archives import Chain, open_chain
from blockferry.aws.regions import refuse_unknown_regions
from blockferry.aws.sessions import Identity
from blockferry.core.blocks import BLOCK_SIZE, blocks_of_volume, blocks_per_range, split
from blockferry.core.errors import ArchiveDamaged, InvalidRequest
from blockferry.core.quotas import BLOCKS_PER_SECOND
from blockferry.formats.archive.layout import parse_manifest_uri
from blockferry.formats.archive.manifest import Member
from blockferry.jobs.call import JobCall
from blockferry.jobs.execution import Execution
from blockferry.jobs.folder import RANGES, RESULTS
from blockferry.jobs.record import Place
from blockferry.requests.parts import parse
from blockferry.requests.verify import VerifyRequest
from blockferry.sources.archive import refuse_frozen
from blockferry.sources.foreign import examine_foreign
from blockferry.sources.readable import readable_snapshot, refuse_no_access, source_identity
from blockferry.transfer.workers import plan_workers
from blockferry.verification.record import Finding, Verification, planned, save_plan

BYTES_PER_WORKER = 60 * 2**20 * 600
"""Stored bytes that a worker is given at least: ten minutes of reading, so that few objects do not start many."""


def plan_verification(
    call: JobCall, execution: Execution, *, started_at: str, request: Mapping[str, Any]
) -> dict[str, Any]:
    """Open the archive and what it is compared with, and plan the ranges.

    Returns ``{"job_id", "bucket", "plan_key", "results_prefix", "max_concurrency", "record", "readable"}``. An archive
    whose manifest or chain is damaged is not ``readable``: what was found is on record, and there is nothing more to
    look at. Raises ``InvalidRequest`` for what cannot be verified.
    """
    folder = call.folder
    fingerprint = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    earlier = planned(folder)
    if earlier is not None and (earlier.execution_arn, earlier.fingerprint) != (execution.arn, fingerprint):
        raise InvalidRequest(
            f"a job named {folder.job_id} of {earlier.execution_arn} is recorded in {folder.uri()}; start the "
            "execution under another name"
        )
    asked = parse(VerifyRequest, request, what="verify")
    plan = _plan(asked, execution, started_at, fingerprint, call)
    record = save_plan(folder, plan)
    if not plan.damage:
        folder.save_ranges(split(plan.total_blocks, plan.blocks_per_range))
    return {
        "job_id": execution.job_id,
        "bucket": folder.bucket,
        "plan_key": folder.key(RANGES),
        "results_prefix": folder.key(RESULTS),
        "max_concurrency": plan.workers,
        "record": record,
        "readable": not plan.damage,
    }


def _plan(asked: VerifyRequest, execution: Execution, started_at: str, fingerprint: str, call: JobCall) -> Verification:
    identity = source_identity(asked.source, call.aws)
    refuse_unknown_regions(call.aws, [("source.region", identity.region)])
    plan = Verification(
        job_id=execution.job_id,
        execution_arn=execution.arn,
        started_at=started_at,
        fingerprint=fingerprint,
        place=Place(region=identity.region, role_arn=identity.role_arn, external_id=identity.external_id),
        snapshot_id=asked.snapshot_id,
        sample_percent=asked.sample_percent,
        seed=asked.options.seed or execution.job_id,
    )
    if asked.foreign_uri is not None:
        found = examine_foreign(asked.foreign_uri, identity, call)
        foreign = found.source
        known = {"foreign": foreign, "warnings": found.warnings}
        held = _Held(foreign.size_gib, foreign.allocated_blocks, foreign.stored_bytes)
        return plan.model_copy(update=known | _shared_out(asked, held, identity, execution, call))
    uri = asked.manifest_uri or ""
    try:
        chain = open_chain(call, identity, uri)
    except ArchiveDamaged as error:
        return plan.model_copy(update={"damage": (_finding(uri, error),)})
    other: Chain | None = None
    if asked.other_manifest_uri is not None:
        try:
            other = open_chain(call, identity, asked.other_manifest_uri, what="other_manifest_uri")
        except ArchiveDamaged as error:
            raise InvalidRequest(f"other_manifest_uri: {error}; verify that one by itself first") from error
    refuse_frozen(chain)
    manifest = chain.manifest
    if other is not None and other.manifest.volume_size_gib != manifest.volume_size_gib:
        raise InvalidRequest(
            f"other_manifest_uri is of a volume of {other.manifest.volume_size_gib} GiB, and manifest_uri of "
            f"{manifest.volume_size_gib}: they cannot hold the same"
        )
    stored = sum(each.manifest.counts.stored_bytes for each in chain.members)
    held = _Held(manifest.volume_size_gib, manifest.counts.allocated_blocks, stored)
    known = {"chain": _members(chain), "other": () if other is None else _members(other)}
    return plan.model_copy(update=known | _shared_out(asked, held, identity, execution, call))


class _Held(NamedTuple):
    """What an archive holds."""

    size_gib: int
    allocated_blocks: int
    stored_bytes: int


def _shared_out(
    asked: VerifyRequest, held: _Held, identity: Identity, execution: Execution, call: JobCall
) -> dict[str, Any]:
    """How the work is cut into ranges, and by how many workers it is done."""
    if asked.snapshot_id is not None:
        _refuse_other_snapshot(asked.snapshot_id, held.size_gib, identity, call)
    total = blocks_of_volume(held.size_gib)
    length = blocks_per_range(total, asked.options.blocks_per_range)
    ranges = math.ceil(total / length)
    read = held.stored_bytes + (held.allocated_blocks * BLOCK_SIZE if asked.snapshot_id else 0)
    workers = plan_workers(
        asked.options.max_concurrency,
        useful=max(1, math.ceil(read / BYTES_PER_WORKER)),
        ranges=ranges,
        client=lambda: call.aws.functions(execution.region),
        region=execution.region,
    )
    return {
        "total_blocks": total,
        "blocks_per_range": length,
        "workers": workers.count,
        "workers_because": workers.because,
        "blocks_per_second": BLOCKS_PER_SECOND / 2 / workers.count,
    }


def _members(chain: Chain) -> tuple[Member, ...]:
    return tuple(Member(manifest_uri=each.address.manifest_uri, sha256=each.manifest.sha256) for each in chain.members)


def _finding(uri: str, error: ArchiveDamaged) -> Finding:
    return Finding(code="manifest", object=parse_manifest_uri(uri).manifest_uri, first=0, stop=0, message=str(error))


def _refuse_other_snapshot(snapshot_id: str, size_gib: int, identity: Identity, call: JobCall) -> None:
    facts = readable_snapshot(call, identity, snapshot_id)
    refuse_no_access(call.ebs(identity), snapshot_id)
    if facts.size_gib != size_gib:
        raise InvalidRequest(
            f"snapshot_id {snapshot_id} has {facts.size_gib} GiB, and the archive is of a volume of {size_gib} GiB: "
            "they cannot hold the same"
        )

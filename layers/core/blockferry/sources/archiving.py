"""What is archived: a snapshot in full, what changed since an earlier archive, or a disk image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from blockferry.aws import snapshots
from blockferry.aws.archives import Archive, bucket_of, open_archive, open_chain
from blockferry.aws.call import Call
from blockferry.aws.sessions import Identity
from blockferry.aws.snapshots import SnapshotFacts, has_volume
from blockferry.core.errors import ArchiveDamaged, InvalidRequest, RequestRefused
from blockferry.core.holes import HoleDecision, HolePolicy
from blockferry.core.together import together
from blockferry.core.words import counted
from blockferry.formats.archive.layout import ArchiveAddress, with_slash
from blockferry.formats.archive.manifest import Manifest, Member, SourceFacts
from blockferry.jobs.call import JobCall
from blockferry.jobs.record import JobWarning
from blockferry.requests.archive import ArchivePlace, ArchiveRequest
from blockferry.sources.archive import refused_archive
from blockferry.sources.delta import JobDelta, base_record
from blockferry.sources.image import JobImage, examine_image
from blockferry.sources.kind import Examined
from blockferry.sources.readable import related
from blockferry.sources.snapshot import JobSnapshot, examine_snapshot, snapshot_members

Archived = JobSnapshot | JobDelta | JobImage

AUTO = "auto"

MANIFESTS_AT_A_TIME = 4
"""Manifests that are read at a time where the newest of many archives is looked for."""


@dataclass(frozen=True, kw_only=True)
class ForArchive(Examined[Archived]):
    """A source that was looked at for an archive: what the manifest says of it, and the archives that the new one is
    built upon, the nearest first. ``compares``: all of it is read, and what the base has is left out by digest.
    ``warnings`` tell of a full archive that was to be built upon another one."""

    facts: SourceFacts
    holes: HoleDecision
    base: tuple[Member, ...] = ()
    compares: bool = False

    def decide(self, asked: HolePolicy | None, *, may_be_encrypted: bool) -> HoleDecision:
        return self.holes


def examine_for_archive(request: ArchiveRequest, identity: Identity, call: JobCall) -> ForArchive:
    """Look at what is to be archived, and find what it is built upon. Raises ``InvalidRequest``."""
    if request.image_uri is not None:
        image = examine_image(request, request.image_uri, identity, call)
        holes = image.decide(HolePolicy.PRESERVE, may_be_encrypted=False)
        facts = SourceFacts(image=request.image_uri, region=identity.region)
        return ForArchive(
            source=image.source, size_gib=image.size_gib, description=image.description, facts=facts, holes=holes
        )
    found = examine_snapshot(request.snapshot_id or "", None, identity, call)
    snapshot = found.snapshot
    base, why_full = _base(request, snapshot, identity, call)
    source: Archived = found.source
    members: tuple[Member, ...] = ()
    compares = False
    earlier: SnapshotFacts | None = None
    if base is not None:
        try:
            earlier = _base_snapshot(base, snapshot, identity, call)
        except InvalidRequest as error:
            if request.base_manifest_uri != AUTO:
                raise InvalidRequest(f"{error}: leave base_manifest_uri out for a full archive") from error
            base, why_full = None, str(error)
    if base is not None:
        members = (Member(manifest_uri=base.address.manifest_uri, sha256=base.manifest.sha256), *base.manifest.base)
        compares = earlier is None
        if earlier is not None:
            source = JobDelta(
                **snapshot_members(snapshot, identity, found.source.lineage_name), base=base_record(earlier)
            )
    holes = found.decide(None, may_be_encrypted=False)
    return ForArchive(
        source=source,
        size_gib=found.size_gib,
        description=found.description,
        tags=found.tags,
        encrypted=found.encrypted,
        facts=source_facts(snapshot, identity),
        holes=holes,
        base=members,
        compares=compares,
        warnings=warnings_of(why_full),
    )


def warnings_of(why_full: str | None) -> tuple[JobWarning, ...]:
    """The warning of a full archive that was to be built upon another one."""
    return () if why_full is None else (JobWarning(code="full_archive", message=f"it is a full one: {why_full}"),)


def source_facts(snapshot: SnapshotFacts, identity: Identity) -> SourceFacts:
    """What a manifest says of a snapshot."""
    return SourceFacts(
        snapshot_id=snapshot.snapshot_id,
        region=identity.region,
        owner_id=snapshot.owner_id,
        volume_id=snapshot.volume_id,
        start_time=snapshot.start_time.isoformat(),
        description=snapshot.description,
        tags=dict(snapshot.tags),
        encrypted=snapshot.encrypted,
        kms_key_arn=snapshot.kms_key_id,
    )


Base = tuple[Archive | None, str | None]
"""The archive to build upon, and, where one was asked for, why there is none."""


def _base(request: ArchiveRequest, snapshot: SnapshotFacts, identity: Identity, call: JobCall) -> Base:
    """The archive that the new one is built upon. Raises ``InvalidRequest``."""
    uri = request.base_manifest_uri
    if uri is None:
        return None, None
    place = Identity(identity.region, request.archive.role_arn, request.archive.external_id)
    with unusable_base():
        if uri == AUTO:
            return _newest(request, snapshot, place, call)
        found = open_chain(call, place, uri, what="base_manifest_uri").newest
    manifest = found.manifest
    name = f"base_manifest_uri {uri}"
    if manifest.volume_size_gib > snapshot.size_gib:
        raise InvalidRequest(
            f"{name} is of a volume of {manifest.volume_size_gib} GiB, {snapshot.snapshot_id} has {snapshot.size_gib}; "
            "volumes only grow, so they cannot be of one volume"
        )
    if not _same_volume(manifest, snapshot):
        raise InvalidRequest(
            f"{name} is an archive of {manifest.source.name} of {manifest.source.volume_id}, and "
            f"{snapshot.snapshot_id} is of {snapshot.volume_id}: an archive is built upon one of the same volume. "
            "Leave base_manifest_uri out for a full one"
        )
    if manifest.source.start_time and manifest.source.start_time > snapshot.start_time.isoformat():
        raise InvalidRequest(
            f"{name} is of a later snapshot (taken at {manifest.source.start_time}) than {snapshot.snapshot_id} "
            f"({snapshot.start_time.isoformat()}): an archive is built upon an earlier one"
        )
    return unless_full(found, request.options.max_chain)


@contextmanager
def unusable_base() -> Iterator[None]:
    """Whatever makes a base unusable that is looked at here is a fault of the input: raises ``InvalidRequest``."""
    try:
        yield
    except ArchiveDamaged as error:
        raise InvalidRequest(f"base_manifest_uri: {error}. Make a full archive: leave base_manifest_uri out") from error
    except RequestRefused as error:
        raise refused_archive("base_manifest_uri", error, role_of="archive") from error


def unless_full(found: Archive, most: int) -> Base:
    """The archive to build upon, unless its chain has ``most`` archives already."""
    length = len(found.manifest.base) + 1
    if length < most:
        return found, None
    return (
        None,
        f"the chain of {found.address.manifest_uri} has {counted(length, 'archive')}, and options.max_chain is {most}",
    )


def _same_volume(manifest: Manifest, snapshot: SnapshotFacts) -> bool:
    """Whether an archive may be of an earlier snapshot of the volume. A made-up volume id is none: what was uploaded or
    copied is of one volume only where EBS itself lists changes."""
    if manifest.source.snapshot_id is None:
        return False
    return manifest.source.volume_id == snapshot.volume_id or not has_volume(snapshot.volume_id)


def _newest(request: ArchiveRequest, snapshot: SnapshotFacts, place: Identity, call: JobCall) -> Base:
    """The newest finished archive of the same volume below the prefix, if its chain is not full yet."""
    prefix = with_slash(request.archive.prefix)
    bucket = bucket_of(call, place, request.archive.bucket)
    taken = snapshot.start_time.isoformat()

    def fits(manifest: Manifest) -> bool:
        return (
            manifest.source.snapshot_id != snapshot.snapshot_id
            and has_volume(snapshot.volume_id)
            and manifest.source.volume_id == snapshot.volume_id
            and manifest.volume_size_gib <= snapshot.size_gib
            and (manifest.source.start_time or "") <= taken
        )

    found = newest_base(request.archive, request.options.max_chain, fits, place, call)
    if found is not None:
        return found
    if not has_volume(snapshot.volume_id):
        return (
            None,
            f"{snapshot.snapshot_id} is not of a volume, so auto cannot tell which archives are of the same disk",
        )
    return (
        None,
        f"below {bucket.uri(prefix)} is no archive of an earlier snapshot of {snapshot.volume_id} that is whole",
    )


def newest_base(
    asked: ArchivePlace, most: int, fits: Callable[[Manifest], bool], place: Identity, call: Call
) -> Base | None:
    """The newest finished archive below the prefix that ``fits`` and whose chain is whole, if it has less than ``most``
    archives; ``None`` when there is no such one."""
    prefix = with_slash(asked.prefix)
    bucket = bucket_of(call, place, asked.bucket)
    addresses = [ArchiveAddress(asked.bucket, prefix, name) for name in bucket.folders(prefix)]

    def taken(address: ArchiveAddress) -> tuple[str, str] | None:
        """When what it holds was taken, and its address: a manifest of the largest volume has 7 MiB in memory, and
        there may be hundreds."""
        try:
            found = open_archive(call, place, address.manifest_uri).manifest
        except (InvalidRequest, ArchiveDamaged):
            # One that was never finished, or is damaged, is none to build upon.
            return None
        return (found.source.start_time or "", address.manifest_uri) if fits(found) else None

    fitting = [each for each in together(taken, addresses, most=MANIFESTS_AT_A_TIME) if each is not None]
    for _, uri in sorted(fitting, reverse=True):
        try:
            found = open_archive(call, place, uri)
            base, why_full = unless_full(found, most)
            return (None, why_full) if base is None else (open_chain(call, place, uri).newest, None)
        except (InvalidRequest, ArchiveDamaged):
            continue
    return None


def _base_snapshot(base: Archive, snapshot: SnapshotFacts, identity: Identity, call: JobCall) -> SnapshotFacts | None:
    """The snapshot that the base is an archive of, if EBS still tells what changed since; ``None`` where everything has
    to be compared.

    Raises ``InvalidRequest`` when EBS says that they are not of one volume.
    """
    name = base.manifest.source.snapshot_id or ""
    (known,) = snapshots.existing(call.ec2(identity), [name]) or (None,)
    if known is None or known.state != "completed" or known.tier != "standard":
        return None
    if base.manifest.source.region != identity.region:
        return None
    if not related(call.ebs(identity), name, snapshot.snapshot_id):
        raise InvalidRequest(
            f"base_manifest_uri {base.address.manifest_uri} is of {name}, and EBS says that {snapshot.snapshot_id} is "
            "not of the same volume (UNRELATED_SNAPSHOTS)"
        )
    return known

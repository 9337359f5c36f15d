"""An archive in S3 as a target: claimed, written in segments, counted, and made what it is by its manifest."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import islice
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlencode

from botocore.exceptions import ClientError
from pydantic import Field

from blockferry import __version__
from blockferry.aws.archives import Archive, Chain, Located, bucket_of, open_archive
from blockferry.aws.call import Call
from blockferry.aws.objects import Bucket, Stored, put_to
from blockferry.aws.sessions import Identity
from blockferry.core.blocks import BlockRange
from blockferry.core.checksums import DIGEST_SIZE, ZERO_DIGEST, Linear
from blockferry.core.counts import at
from blockferry.core.errors import (
    ArchiveDamaged,
    IncompleteTransfer,
    InvalidRequest,
    RequestRefused,
    RetryLater,
    TargetFailed,
)
from blockferry.core.holes import HoleMeaning
from blockferry.core.ports import BlockSource
from blockferry.core.words import counted
from blockferry.formats.archive import index, manifest
from blockferry.formats.archive.index import ENTRY, Kind, RangeIndex
from blockferry.formats.archive.layout import (
    MANIFEST,
    SEGMENTS,
    UNFINISHED,
    ArchiveAddress,
    index_name,
    segment_name,
    with_slash,
)
from blockferry.formats.archive.manifest import Codec, Counts, IndexFacts, Manifest, Member, SourceFacts
from blockferry.formats.archive.segment import Compressor
from blockferry.jobs import archived
from blockferry.jobs.archived import Note, Part
from blockferry.jobs.call import JobCall
from blockferry.jobs.record import Sealing, Sums
from blockferry.sources.kind import JobSource
from blockferry.targets.archive_claim import ArchiveState, LeftArchive, claim_of, claimed_by, parts_of, whose
from blockferry.targets.archive_listing import Listing, MadeOf
from blockferry.targets.kind import Forecast, JobTarget, Looked, Sealings, Started, looked_at
from blockferry.targets.segments import MOST_WAITING, SegmentSink

SAMPLE_PLACES, SAMPLE_WITHIN, SAMPLE_AT_A_PLACE = 16, 4_096, 4
"""Of a dry run: blocks are read at so many places of the disk, the first few within so many indices behind each."""

LONGEST_HEADER = 1_000
"""Characters of a header with facts about an archive; only a description, escaped, can be longer."""


class ArchiveTarget(JobTarget):
    """An archive that a job writes. ``region`` is its bucket's; ``base`` are the archives that it is built upon, the
    nearest first; ``compares``: everything is read, and what the base has with the same content is not stored."""

    most_ahead: ClassVar[int | None] = MOST_WAITING
    kind: Literal["archive"] = "archive"
    bucket: str
    prefix: str
    archive_id: str
    storage_class: str
    kms_key_arn: str | None
    level: int
    segment_blocks: int
    object_tags: dict[str, str] = Field(default_factory=dict)
    source: SourceFacts
    holes: HoleMeaning
    base: tuple[Member, ...] = ()
    compares: bool = False
    job_id: str
    execution: str
    machine: str | None = None
    """The process that writes it, where that is no job's; nobody sweeps what it leaves."""

    @property
    def address(self) -> ArchiveAddress:
        return ArchiveAddress(self.bucket, self.prefix, self.archive_id)

    @property
    def name(self) -> str:
        return f"archive {self.address.uri()}"

    def asks(self, home: str) -> str:
        return f"store {self.region}"

    def writing(self, blocks: int, ranges: int) -> Mapping[str, int]:
        # A range ends its last segment, and has an index; the manifest and the claim are written once.
        segments = -(-blocks // self.segment_blocks) + min(ranges, blocks)
        requests = Counter({at(put_to(self.storage_class), self.region): segments})
        requests[at("PutObject", self.region)] += min(ranges, blocks) + 2
        return requests

    def planned(self) -> dict[str, Any]:
        return {
            "region": self.region,
            "manifest_uri": self.address.manifest_uri,
            "archive_id": self.archive_id,
            "base_manifest_uri": self.base[0].manifest_uri if self.base else None,
            "storage_class": self.storage_class,
            "volume_size_gib": self.size_gib,
        }

    def forecast(self, source: JobSource, call: JobCall, *, total_blocks: int, blocks: int) -> Forecast | None:
        return self.sampled(lambda: source.open(call), total_blocks=total_blocks, blocks=blocks)

    def sampled(self, opened: Callable[[], BlockSource], *, total_blocks: int, blocks: int) -> Forecast | None:
        """The same of whatever source is ``opened``."""
        compressor = Compressor(self.level)
        taken = stored = 0
        for place in range(SAMPLE_PLACES):
            first = total_blocks * place // SAMPLE_PLACES
            following = total_blocks * (place + 1) // SAMPLE_PLACES
            within = BlockRange(first, min(first + SAMPLE_WITHIN, following))
            reading = opened()
            for ref in islice(reading.blocks(within), SAMPLE_AT_A_PLACE):
                block = None if ref.removed else reading.read(ref)
                stored += ENTRY.size * 2
                if block is not None and block.digest != ZERO_DIGEST:
                    stored += len(compressor.frame(block.data))
                taken += 1
        if not taken:
            return None
        return Forecast(taken, round(stored / taken * blocks), self.storage_class)

    # -- its life ----------------------------------------------------------------------

    def start(self, call: Call, *, token: str, mark: str) -> Self:
        """Claim its place, so that no other job writes there, and whoever cleans up knows whose it is.

        Raises ``InvalidRequest`` when there is an archive, or another job's claim.
        """
        bucket = self._bucket(call)
        claim = claim_of(mark, job_id=self.job_id, machine=self.machine)
        stored = bucket.put(
            self.address.key(UNFINISHED), claim, sha256=_sha256(claim), once=True, **self.hot("application/json")
        )
        there = claim if stored is not None else bucket.get(self.address.key(UNFINISHED))
        if there is None:
            raise RetryLater(f"{self.name}: the claim of another job was taken away just now")
        if claimed_by(there) != mark:
            raise InvalidRequest(f"{self.name} is being written by {whose(there, self.address)}")
        # Behind the claim, which the sweep takes away: another job may have come and gone since this one was planned,
        # and none comes from here on.
        if bucket.get(self.address.key(MANIFEST)) is not None:
            raise InvalidRequest(
                f"{self.address.manifest_uri} was written by another job meanwhile, and an archive is never written "
                "over: name another archive.archive_id, or leave it out"
            )
        return self.model_copy(
            update={"started": Started(snapshot_id=self.archive_id, at=datetime.now(UTC).isoformat())}
        )

    def sink(self, call: JobCall, *, number: int, within: BlockRange) -> SegmentSink:
        return self.segments(call, within, keep=lambda part: archived.save_part(call.folder, number, part))

    def segments(
        self, call: Call, within: BlockRange, *, keep: Callable[[Part], None], chain: Chain | None = None
    ) -> SegmentSink:
        """Where the blocks of a range are written; ``keep`` gets what was stored of it. ``chain`` is what it is built
        upon, where that was opened before."""
        return SegmentSink(
            self._bucket(call),
            self.address,
            within,
            keep=lambda stored, etags: keep(Part(stored, etags)),
            level=self.level,
            segment_blocks=self.segment_blocks,
            facts={"snapshot_id": self.source.name, "volume_size_gib": self.volume_gib, "base": self._nearest},
            put=self._cold("application/zstd"),
            base=(chain or self.chain(call)).held(within) if self.compares else None,
        )

    @property
    def _nearest(self) -> str | None:
        return self.base[0].manifest_uri if self.base else None

    def counted(
        self, call: JobCall, number: int, within: BlockRange, entries: Sequence[tuple[int, bytes]], allocated: int
    ) -> None:
        parts = archived.parts_of(call.folder, number, within)
        archived.save_note(call.folder, number, *self.held(call, parts, within, entries, allocated))

    def held(
        self,
        call: Call,
        parts: Sequence[Part],
        within: BlockRange,
        entries: Sequence[tuple[int, bytes]],
        allocated: int,
        *,
        chain: Chain | None = None,
    ) -> tuple[Note, bytes]:
        """The note of a range, whose index is stored, and the raw digests of all that the source has there, if the
        archive is built upon another one. Raises ``IncompleteTransfer`` when the ``parts`` are not all of it."""
        bucket = self._bucket(call)
        found, objects = self._stored(bucket, parts, within)
        below = (chain or self.chain(call)).held(within) if self.base else {}
        digests = self._held_against(below, found, entries, allocated)
        note = Note(first=within.first, stop=within.stop, digests=len(digests) // DIGEST_SIZE)
        if found.entries:
            body = index.pack(found)
            key = self.address.key(index_name(within.first))
            etag = bucket.put(key, body, sha256=_sha256(body), **self.hot("application/octet-stream"))
            objects = [Stored(key, len(body), str(etag)), *objects]
            kinds = [entry.kind for entry in found.entries]
            note = note.model_copy(
                update={
                    "index_bytes": len(body),
                    "index_sha256": hashlib.sha256(body).hexdigest(),
                    "data_blocks": kinds.count(Kind.DATA),
                    "zero_blocks": kinds.count(Kind.ZEROS),
                    "removed_blocks": kinds.count(Kind.REMOVED),
                    "segments": len(found.segments),
                    "stored_bytes": sum(segment.stored_bytes for segment in found.segments),
                }
            )
        there = tuple((each.key, each.size, each.etag) for each in objects)
        return note.model_copy(update={"objects": there}), digests

    def _held_against(
        self, below: Mapping[int, Located], found: RangeIndex, entries: Sequence[tuple[int, bytes]], allocated: int
    ) -> bytes:
        """Hold the index, on top of the base, against what was moved and what the source has allocated. Returns the
        digests of all that the snapshot has, where there is a base: without one the proof has them."""
        held = {block: located.entry.digest for block, located in below.items()}
        removed = set()
        for entry in found.entries:
            if entry.kind is Kind.REMOVED:
                removed.add(entry.block)
                held.pop(entry.block, None)
            else:
                held[entry.block] = entry.digest
        for block, digest in entries:
            if block not in removed and held.get(block) != digest:
                raise IncompleteTransfer(f"{self.name} does not have block {block} as it was read; start a new job")
        if len(held) != allocated:
            raise IncompleteTransfer(
                f"{self.name} has {counted(len(held), 'block')} between {found.range.first} and {found.range.stop}, "
                f"those of its base included, and {self.source.name} has {allocated}; start a new job"
            )
        return b"".join(digest for _, digest in sorted(held.items())) if self.base else b""

    def _stored(self, bucket: Bucket, parts: Sequence[Part], within: BlockRange) -> tuple[RangeIndex, list[Stored]]:
        """The index of a range, from parts whose segments are in the bucket as they were stored, and these segments.
        Raises ``IncompleteTransfer`` when they do not make it up.

        Others are those of calls that were repeated, whose segments were stored anew with another end.
        """
        there = self._listed(bucket, within) if any(part.index.segments for part in parts) else {}
        whole: list[Part] = []
        gone: list[str] = []
        for part in parts:
            odd = [each.key for each in self._segments(part) if there.get(each.key) != each]
            gone += odd
            whole += [] if odd else [part]
        chosen = archived.covering(whole, within)
        if not chosen:
            why = f"{bucket.uri(gone[0])} is not what was stored" if gone else "nobody stored all of them"
            raise IncompleteTransfer(
                f"{self.name} does not have blocks {within.first} to {within.stop - 1}: {why}; start a new job"
            )
        found = index.joined([part.index for part in chosen], within)
        return found, [each for part in chosen for each in self._segments(part)]

    def _segments(self, part: Part) -> list[Stored]:
        return [
            Stored(self.address.key(segment_name(facts.first)), facts.stored_bytes, part.etags[facts.first])
            for facts in part.index.segments
        ]

    def _listed(self, bucket: Bucket, within: BlockRange) -> Mapping[str, Stored]:
        """The segments of a range as the bucket lists them, by key."""
        prefix = self.address.key(SEGMENTS)
        end = self.address.key(segment_name(within.stop))
        after = self.address.key(segment_name(within.first - 1)) if within.first else prefix
        there: dict[str, Stored] = {}
        for each in bucket.listed(prefix, after=after):
            if each.key >= end:
                break
            there[each.key] = each
        return there

    def seal(self, call: JobCall, number: int, sums: Sums, sealings: Sealings) -> None:
        """Write its manifest, once, when every object that it names is in the bucket as it was stored.

        Raises ``IncompleteTransfer`` when one is not, and ``TargetFailed`` for a manifest that another one has written.
        """
        before = sealings.sealing(self.snapshot_id)
        if before is not None and before.state == "accepted":
            return
        self.commit(call, self._manifest(call, number, sums), sealings)

    def commit(self, call: Call, made: Manifest, sealings: Sealings) -> None:
        """Write its manifest, once. Raises what ``seal`` raises."""
        body = manifest.dump(made)
        asked = Sealing(
            state="asked",
            changed_blocks=made.counts.data_blocks + made.counts.zero_blocks,
            linear_checksum=made.linear_checksum,
        )
        sealings.save_sealing(self.snapshot_id, asked)
        bucket = self._bucket(call)
        key = self.address.key(MANIFEST)
        stored = bucket.put(
            key, body, sha256=_sha256(body), once=True, **self.hot("application/json"), Metadata=self._metadata()
        )
        there = None if stored is not None else bucket.get(key)
        if stored is None and not _same(there, made, name=self.address.manifest_uri):
            sealings.save_sealing(self.snapshot_id, asked.model_copy(update={"state": "refused"}))
            if there is not None and manifest.is_given_up(there):
                raise TargetFailed(
                    f"{self.name} was given up meanwhile (blockferry discard): it has no manifest; begin anew under "
                    "another archive.archive_id"
                )
            raise TargetFailed(
                f"{self.address.manifest_uri} was written by somebody else meanwhile; it is kept, and this job's is not"
            )
        sealings.save_sealing(self.snapshot_id, asked.model_copy(update={"state": "accepted"}))

    def _manifest(self, call: JobCall, number: int, sums: Sums) -> Manifest:
        linear = Linear()

        def notes() -> Iterator[Note]:
            for note, digests in self._notes(call, number):
                yield note
                # Once it is known to be the next one.
                linear.extend(note.stop - 1, digests)

        made = self.made_of(call, notes())
        if self.base:
            return self.proved(made, linear.blocks, linear.value())
        return self.proved(made, sums.blocks_written, sums.linear_checksum)

    def made_of(self, call: Call, notes: Iterable[Note]) -> MadeOf:
        """What the manifest says of its ranges, whose ``notes`` are in order, once every object that they name is in
        the bucket as it was stored. Raises ``IncompleteTransfer``."""
        counts = dict.fromkeys(("data_blocks", "zero_blocks", "removed_blocks", "segments", "stored_bytes"), 0)
        indexes: list[IndexFacts] = []
        due = 0
        bucket = self._bucket(call)
        with Listing(self.address, bucket, self.total_blocks, segment_blocks=self.segment_blocks) as there:
            for note in notes:
                if note.first != due:
                    raise IncompleteTransfer(f"{self.name}: blocks {due} to {note.first - 1} were not counted")
                due = note.stop
                there.check(note)
                for name in counts:
                    counts[name] += getattr(note, name)
                if note.index_bytes:
                    indexes.append(
                        IndexFacts(first=note.first, stop=note.stop, bytes=note.index_bytes, sha256=note.index_sha256)
                    )
        whole = self.total_blocks
        if due != whole:
            raise IncompleteTransfer(f"{self.name}: blocks {due} to {whole - 1} were not counted")
        return MadeOf(counts, tuple(indexes))

    def proved(self, made: MadeOf, allocated: int, linear_checksum: str) -> Manifest:
        """The manifest, with the number of blocks that the source has, and the checksum over them."""
        return manifest.sealed(
            Manifest(
                archive_id=self.archive_id,
                created_at=self._begun.at,
                tool_version=__version__,
                job_id=self.job_id,
                execution=self.execution,
                volume_size_gib=self.volume_gib,
                codec=Codec(level=self.level),
                segment_blocks=self.segment_blocks,
                source=self.source,
                holes=self.holes,
                base=self.base,
                counts=Counts(allocated_blocks=allocated, **made.counts),
                linear_checksum=linear_checksum,
                indexes=made.indexes,
            )
        )

    def _notes(self, call: JobCall, number: int) -> Iterator[tuple[Note, bytes]]:
        names = archived.note_names(call.folder, number)
        threads, most = call.throughput.proving_threads, call.throughput.proving_ahead
        with ThreadPoolExecutor(threads, thread_name_prefix="notes") as pool:
            # In slices: at 64 TiB of a chain the digests of all would be four GiB.
            for first in range(0, len(names), most):
                some = names[first : first + most]
                yield from list(pool.map(lambda name: archived.note(call.folder, name), some))

    def mark_proved(self, call: Call, sums: Sums) -> None:
        self.unclaim(call)

    def unclaim(self, call: Call) -> None:
        """Take its claim away: the manifest says whose it is."""
        self._bucket(call).delete([self.address.key(UNFINISHED)])

    @classmethod
    def look(cls, targets: Mapping[int, ArchiveTarget], call: Call) -> Looked:
        return looked_at(targets, lambda target: target._state(call))

    def _state(self, call: Call) -> ArchiveState:
        """Raises ``InvalidRequest`` when it has no manifest: it is asked about when that is written."""
        try:
            found = open_archive(call, self.identity, self.address.manifest_uri).manifest
        except InvalidRequest as error:
            raise InvalidRequest(f"{self.address.manifest_uri} is gone, it was written before") from error
        except ArchiveDamaged as error:
            return ArchiveState(self.archive_id, "error", str(error))
        return ArchiveState(self.archive_id, "completed", manifest=found)

    def confirm(self, facts: ArchiveState) -> None:
        if facts.manifest is None:
            raise TargetFailed(f"{self.name} is in state {facts.state}: {facts.state_message}")
        if (facts.manifest.execution, facts.manifest.archive_id) != (self.execution, self.archive_id):
            raise TargetFailed(f"{self.address.manifest_uri} is another archive's now, it was written before")

    def facts(self, found: ArchiveState) -> dict[str, Any]:
        if found.manifest is None:
            raise IncompleteTransfer(f"{self.name} has no manifest")
        counts = found.manifest.counts
        return {
            "region": self.region,
            "snapshot_id": None,
            "archive_id": self.archive_id,
            "manifest_uri": self.address.manifest_uri,
            "base_manifest_uri": self._nearest,
            "state": found.state,
            "volume_size_gib": self.size_gib,
            "storage_class": self.storage_class,
            "encrypted": True,
            "kms_key_arn": self.kms_key_arn,
            "holes_stand_for": self.holes.value,
            **counts.model_dump(),
            "changed_blocks": counts.data_blocks + counts.zero_blocks,
            "blocks_written": counts.data_blocks + counts.zero_blocks + counts.removed_blocks,
            "linear_checksum": found.manifest.linear_checksum,
        }

    def leftover(self, *, new: bool = False) -> LeftArchive | None:
        return None if self.started is None else LeftArchive(self.identity, self.address)

    @classmethod
    def left_behind(
        cls, targets: Sequence[ArchiveTarget], identity: Identity, call: Call, *, mark: str
    ) -> Sequence[LeftArchive]:
        # By the record: its place is that of the operator's input, and its claim says whose it is.
        # Without its manifest it is of no use to anybody, however often a sweep has begun to delete it.
        try:
            left = [target for target in targets if target._left(call, mark)]
        except RequestRefused as error:
            cause = error.__cause__
            if isinstance(cause, ClientError) and cause.response["Error"]["Code"] == "NoSuchBucket":
                # A bucket is deleted only when nothing is in it.
                return []
            raise
        return [LeftArchive(identity, target.address, failed=True) for target in left]

    def _left(self, call: Call, mark: str) -> bool:
        """Whether anything may be there that its execution has left, and be it a claim beside a manifest."""
        bucket = self._bucket(call)
        claim = bucket.get(self.address.key(UNFINISHED))
        if claim is not None:
            return claimed_by(claim) == mark
        there = next(parts_of(bucket, self.address), None) is not None
        return there and bucket.get(self.address.key(MANIFEST)) is None

    def asked_for(self, given: Mapping[str, Any]) -> bool:
        asked = given.get("archive")
        if not isinstance(asked, dict):
            return False
        prefix = asked.get("prefix") or ""
        return (
            (asked.get("bucket"), asked.get("role_arn"), asked.get("external_id"))
            == (
                self.bucket,
                self.role_arn,
                self.external_id,
            )
            and isinstance(prefix, str)
            and with_slash(prefix) == self.prefix
        )

    # -- what it is made of --------------------------------------------------------------

    @property
    def total_blocks(self) -> int:
        return self.volume_gib * 2_048

    def _bucket(self, call: Call) -> Bucket:
        return bucket_of(call, self.identity, self.bucket)

    def chain(self, call: Call) -> Chain:
        """The archives that it is built upon, which must be what they were. Raises ``ArchiveDamaged``."""
        members: list[Archive] = []
        for number, base in enumerate(self.base):
            try:
                found = open_archive(call, self.identity, base.manifest_uri)
            except InvalidRequest as error:
                raise ArchiveDamaged(
                    f"{base.manifest_uri}, which the archive is built upon, is gone; start a new job with another "
                    "base, or without one"
                ) from error
            if found.manifest.sha256 != base.sha256 or found.manifest.base != self.base[number + 1 :]:
                raise ArchiveDamaged(
                    f"{base.manifest_uri}, which the archive is built upon, is another one now; start a new job"
                )
            members.append(found)
        return Chain(tuple(members))

    def _encryption(self) -> dict[str, Any]:
        if self.kms_key_arn is None:
            return {}
        return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.kms_key_arn}

    def hot(self, content_type: str) -> dict[str, Any]:
        """Members of PutObject for what has to be read at any time."""
        tags = {"Tagging": urlencode(self.object_tags)} if self.object_tags else {}
        return {"ContentType": content_type, **self._encryption(), **tags}

    def _cold(self, content_type: str) -> dict[str, Any]:
        return {**self.hot(content_type), "StorageClass": self.storage_class}

    def _metadata(self) -> dict[str, str]:
        """What a look at the manifest's headers tells: printable ASCII, and 2 KiB in all, as S3 asks for; the manifest
        itself has it all."""
        known = {
            "snapshot-id": self.source.snapshot_id,
            "volume-id": self.source.volume_id,
            "start-time": self.source.start_time,
            "volume-size-gib": str(self.volume_gib),
            "uncompressed-size": str(self.volume_gib * 2**30),
            "description": self.source.description,
        }
        escaped = {name: value.encode("unicode_escape").decode().strip() for name, value in known.items() if value}
        return {name: value[:LONGEST_HEADER] for name, value in escaped.items() if value}


def _same(there: bytes | None, made: Manifest, *, name: str) -> bool:
    """Whether a manifest that is there is the one that was made, also by another version of Blockferry."""
    try:
        found = None if there is None else manifest.load(there, name=name)
    except ArchiveDamaged:
        return False
    return found is not None and manifest.sealed(made.model_copy(update={"tool_version": found.tool_version})) == found


def _sha256(body: bytes) -> str:
    return base64.b64encode(hashlib.sha256(body).digest()).decode()

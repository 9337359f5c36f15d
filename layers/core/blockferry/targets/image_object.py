"""A raw disk image in S3 as a target: one object, of which many workers write parts at once, and that is there as a
whole or not at all."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlencode

from pydantic import Field

from blockferry.aws.call import Call
from blockferry.aws.sessions import Identity
from blockferry.aws.uploads import SentPart, UploadBucket, composite, part_sent_to, upload_bucket
from blockferry.core.blocks import BLOCK_SIZE, BlockRange, blocks_of_volume
from blockferry.core.checksums import ZERO_DIGEST
from blockferry.core.counts import at
from blockferry.core.errors import IncompleteTransfer, InvalidRequest, RetryLater, TargetFailed
from blockferry.core.holes import HoleMeaning
from blockferry.core.retry import Deadline
from blockferry.jobs.call import JobCall
from blockferry.jobs.object_parts import PartNote, by_number, part_names, parts_in, save_parts
from blockferry.jobs.record import Sealing, Sums
from blockferry.sources.kind import JobSource
from blockferry.targets.kind import Forecast, JobTarget, Looked, Sealings, Started, looked_at
from blockferry.targets.parts import PartSink, Place, gone
from blockferry.targets.segments import MOST_WAITING
from blockferry.targets.unfinished_object import EXECUTION, LeftObject, ObjectState, made_by, marker_of, own_object

SMALLEST_PART = 32
"""Blocks of a part of a small volume, 16 MiB: S3 takes parts of 5 MiB to 5 GiB."""

MOST_PARTS = 9_999
"""Parts of an object: S3 takes 10,000, and one more says whose an upload is."""


def part_blocks(size_gib: int) -> int:
    """Blocks of each part but the last of a volume. A worker has one part in memory: 525 MiB of 5 TiB."""
    return max(SMALLEST_PART, -(-blocks_of_volume(size_gib) // MOST_PARTS))


class ImageObject(JobTarget):
    """An object that holds a whole volume. ``region`` is its bucket's, ``since`` when the job was planned (ISO 8601).
    ``origin`` names the source for whoever finds the object."""

    most_ahead: ClassVar[int | None] = MOST_WAITING
    kind: Literal["image object"] = "image object"
    bucket: str
    key: str
    storage_class: str
    kms_key_arn: str | None
    object_tags: dict[str, str] = Field(default_factory=dict)
    part_blocks: int
    origin: str
    since: str
    job_id: str
    execution: str

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def name(self) -> str:
        return f"object {self.uri}"

    @property
    def shown_id(self) -> str:
        return self.uri

    @property
    def size(self) -> int:
        """Bytes of the object. Raises ``IncompleteTransfer`` as long as that is not known."""
        return self.total_blocks * BLOCK_SIZE

    @property
    def total_blocks(self) -> int:
        return blocks_of_volume(self.volume_gib)

    @property
    def parts(self) -> int:
        return -(-self.total_blocks // self.part_blocks)

    @property
    def in_steps_of(self) -> int:
        return self.part_blocks

    def asks(self, home: str) -> str:
        return f"store {self.region}"

    def writing(self, blocks: int, ranges: int) -> Mapping[str, int]:
        # All of the volume, whatever the source has of it; without a size, what is known of it.
        parts = -(-blocks // self.part_blocks) if self.size_gib is None else self.parts
        requests = Counter({at(part_sent_to(self.storage_class), self.region): parts + 1})
        for operation in ("CreateMultipartUpload", "CompleteMultipartUpload"):
            requests[at(part_sent_to(self.storage_class, operation), self.region)] += 1
        requests[at("ListParts", self.region)] += 2 * ranges + -(-parts // 1_000)
        return requests

    def planned(self) -> dict[str, Any]:
        return {
            "region": self.region,
            "image_uri": self.uri,
            "storage_class": self.storage_class,
            "volume_size_gib": self.size_gib,
            "part_bytes": self.part_blocks * BLOCK_SIZE,
        }

    def forecast(self, source: JobSource, call: JobCall, *, total_blocks: int, blocks: int) -> Forecast | None:
        return Forecast(0, total_blocks * BLOCK_SIZE, self.storage_class)

    # -- its life ----------------------------------------------------------------------

    def start(self, call: Call, *, token: str, mark: str) -> Self:
        """Begin its upload, or find the one that this execution has begun: its last part says whose it is.

        Raises ``InvalidRequest`` when there is an object of its name.
        """
        bucket = self._bucket(call)
        if bucket.head(self.key) is not None:
            raise InvalidRequest(f"{self.uri} was written by somebody else meanwhile, and is not written over")
        known = [each for each in self._left_object().uploads(bucket) if each.marked]
        upload_id = known[0].upload.upload_id if known else self._begin(bucket)
        return self.model_copy(update={"started": Started(snapshot_id=upload_id, at=datetime.now(UTC).isoformat())})

    def _begin(self, bucket: UploadBucket) -> str:
        encryption: dict[str, Any] = {}
        if self.kms_key_arn is not None:
            encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.kms_key_arn}
        upload_id = bucket.begin(
            self.key,
            ContentType="application/octet-stream",
            StorageClass=self.storage_class,
            Metadata={
                EXECUTION: self.execution,
                "blockferry-job-id": self.job_id,
                "blockferry-source": self.origin.encode("unicode_escape").decode()[:1_000],
            },
            **encryption,
            **({"Tagging": urlencode(self.object_tags)} if self.object_tags else {}),
        )
        body, sha256 = marker_of(self.execution)
        number = self.parts + 1
        if bucket.send(self.key, upload_id, number, body, sha256=sha256, storage_class=self.storage_class) is None:
            raise RetryLater(f"the upload of {self.uri} was aborted when it was begun")
        return upload_id

    def sink(self, call: JobCall, *, number: int, within: BlockRange) -> PartSink:
        def keep(sent: BlockRange, notes: Sequence[PartNote]) -> None:
            save_parts(call.folder, number, sent, notes)

        place = Place(self._bucket(call), self.key, self.snapshot_id, self.part_blocks, self.storage_class)
        return PartSink(place, within, keep=keep, deadline=call.deadline or Deadline(None, clock=call.clock))

    def counted(
        self, call: JobCall, number: int, within: BlockRange, entries: Sequence[tuple[int, bytes]], allocated: int
    ) -> None:
        names = part_names(call.folder, number, within)
        notes = by_number(note for name in names for note in parts_in(call.folder, name))
        held = dict(entries)
        due = self._numbers(within)
        for part in due:
            first, stop = self._blocks_of(part)
            content = hashlib.sha256(b"".join(held.get(index, ZERO_DIGEST) for index in range(first, stop))).hexdigest()
            if part not in notes or (notes[part].content, notes[part].size) != (content, self._size_of(part)):
                raise IncompleteTransfer(
                    f"{self.name} does not have blocks {first} to {stop - 1} as they were read; start a new job"
                )
        bucket = self._bucket(call)
        there = bucket.sent(self.key, self.snapshot_id, first=due.start, most=len(due))
        if there is None:
            if self._own(bucket) is None:
                raise gone(self.uri)
            return
        self._held_against([notes[part] for part in due], there)

    def _held_against(self, notes: Sequence[PartNote], there: Sequence[SentPart]) -> list[SentPart]:
        """The parts that S3 has, which must be those that were sent. Raises ``IncompleteTransfer``."""
        by_its_number = {each.number: each for each in there}
        for note in notes:
            found = by_its_number.get(note.number)
            if found is None or (found.size, found.sha256) != (note.size, note.sha256):
                raise IncompleteTransfer(
                    f"part {note.number} of {self.name} is not what was sent, or is gone; start a new job"
                )
        return [by_its_number[note.number] for note in notes]

    def _numbers(self, within: BlockRange) -> range:
        return range(within.first // self.part_blocks + 1, -(-within.stop // self.part_blocks) + 1)

    def _blocks_of(self, part: int) -> tuple[int, int]:
        return (part - 1) * self.part_blocks, min(part * self.part_blocks, self.total_blocks)

    def _size_of(self, part: int) -> int:
        first, stop = self._blocks_of(part)
        return (stop - first) * BLOCK_SIZE

    def seal(self, call: JobCall, number: int, sums: Sums, sealings: Sealings) -> None:
        """Let S3 make the object of its parts, once, when it has every part as it was sent.

        Raises ``IncompleteTransfer`` when it has not, and ``TargetFailed`` for an object that somebody else has put
        there: when that is gone, the job can be resumed.
        """
        before = sealings.sealing(self.snapshot_id)
        if before is not None and before.state == "accepted":
            return
        notes = self._noted(call, number)
        expected = composite(note.sha256 for note in notes)
        asked = Sealing(
            state="asked",
            changed_blocks=sums.blocks_written,
            linear_checksum=sums.linear_checksum,
            object_checksum=expected,
        )
        bucket = self._bucket(call)
        there = bucket.sent(self.key, self.snapshot_id, most=self.parts)
        if there is not None:
            sent = self._held_against(notes, there)
            sealings.save_sealing(self.snapshot_id, asked)
            try:
                bucket.complete(self.key, self.snapshot_id, sent, size=self.size, storage_class=self.storage_class)
            except FileExistsError as error:
                if self._own(bucket) is None:
                    sealings.save_sealing(self.snapshot_id, asked.model_copy(update={"state": "refused"}))
                    raise TargetFailed(
                        f"{self.uri} was written by somebody else meanwhile; it is kept. Move or delete it and resume "
                        "the job, or start a new one with another key"
                    ) from error
        found = self._own(bucket)
        if found is None:
            raise gone(self.uri)
        self._refuse_other(found, expected)
        sealings.save_sealing(self.snapshot_id, asked.model_copy(update={"state": "accepted"}))

    def _noted(self, call: JobCall, number: int) -> list[PartNote]:
        """All parts as they were sent, each of which was held against its blocks when its range was counted."""
        folder = call.folder
        with ThreadPoolExecutor(call.throughput.proving_threads, thread_name_prefix="notes") as pool:
            found = list(pool.map(lambda name: parts_in(folder, name), part_names(folder, number)))
        notes = by_number(note for some in found for note in some)
        missing = next((part for part in range(1, self.parts + 1) if part not in notes), None)
        if missing is not None:
            raise IncompleteTransfer(f"{self.name}: part {missing} was not sent")
        return [notes[part] for part in range(1, self.parts + 1)]

    def _refuse_other(self, found: Mapping[str, Any], expected: str) -> None:
        """Raises ``TargetFailed`` unless S3 has the bytes that were sent."""
        size, checksum = int(found["ContentLength"]), found.get("ChecksumSHA256")
        if (size, checksum) != (self.size, expected):
            raise TargetFailed(
                f"{self.uri} has {size} bytes with the checksum {checksum}, and {self.size} with {expected} were sent"
            )

    def _own(self, bucket: UploadBucket) -> Mapping[str, Any] | None:
        """The object, if this job has made the one that is there."""
        return own_object(bucket, self.key, self.execution)

    def mark_proved(self, call: Call, sums: Sums) -> None:
        """End what a call has begun of which nobody heard any more."""
        self._left_object().clear(self._bucket(call))

    @classmethod
    def look(cls, targets: Mapping[int, ImageObject], call: JobCall) -> Looked:
        return looked_at(targets, lambda target: target._state(call))

    def _state(self, call: JobCall) -> ObjectState:
        bucket = self._bucket(call)
        found = bucket.head(self.key)
        if found is None:
            raise InvalidRequest(f"{self.uri} is gone, it was written before")
        sealing = call.folder.sealing(self.snapshot_id)
        if sealing is None or not made_by(self.execution, found):
            return ObjectState(self.uri, "error", "it is another object now, it was written before")
        try:
            self._refuse_other(found, str(sealing.object_checksum))
        except TargetFailed as error:
            return ObjectState(self.uri, "error", str(error))
        return ObjectState(self.uri, "completed", headers=found)

    def confirm(self, facts: ObjectState) -> None:
        if facts.state != "completed":
            raise TargetFailed(f"{self.name} is in state {facts.state}: {facts.state_message}")

    def facts(self, found: ObjectState) -> dict[str, Any]:
        headers = found.headers or {}
        return {
            "region": self.region,
            "snapshot_id": None,
            "image_uri": self.uri,
            "version_id": headers.get("VersionId"),
            "etag": headers.get("ETag"),
            "state": found.state,
            "volume_size_gib": self.size_gib,
            "stored_bytes": self.size,
            "parts": self.parts,
            "part_bytes": self.part_blocks * BLOCK_SIZE,
            "checksum_sha256": headers.get("ChecksumSHA256"),
            "storage_class": self.storage_class,
            "encrypted": True,
            "kms_key_arn": self.kms_key_arn,
            "holes_stand_for": HoleMeaning.NONE.value,
        }

    def leftover(self, *, new: bool = False) -> LeftObject | None:
        return None if self.started is None else self._left_object()

    @classmethod
    def left_behind(
        cls, targets: Sequence[ImageObject], identity: Identity, call: Call, *, mark: str
    ) -> Sequence[LeftObject]:
        # By the record: its key is that of the operator's input, and the uploads to it say whose they are.
        found = [target._left_object() for target in targets if target.size_gib is not None]
        return [left for left in found if any(True for _ in left.uploads(upload_bucket(call, identity, left.bucket)))]

    def asked_for(self, given: Mapping[str, Any]) -> bool:
        asked = given.get("targets")
        return isinstance(asked, list) and any(
            isinstance(each, dict)
            and (each.get("image_uri"), each.get("role_arn"), each.get("external_id"))
            == (self.uri, self.role_arn, self.external_id)
            for each in asked
        )

    # -- what it is made of --------------------------------------------------------------

    def _bucket(self, call: Call) -> UploadBucket:
        return upload_bucket(call, self.identity, self.bucket)

    def _left_object(self) -> LeftObject:
        """What there may be of it that is not finished."""
        since = datetime.fromisoformat(self.since)
        return LeftObject(self.identity, self.bucket, self.key, self.execution, parts=self.parts, since=since)

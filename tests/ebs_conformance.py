"""What the EBS direct APIs and the EC2 snapshot actions are documented to do, as seen through boto3, and
through our own client where the form of requests matters.

The tests are in ``EbsConformance``; a subclass in ``tests/localcloud`` runs them against the local cloud and one in
``tests/aws`` against a real account. So whatever the local cloud claims can be checked where it matters. Sources: EBS
user guide ("Use EBS direct APIs"), botocore's service model ``ebs/2019-11-02``.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from blockferry.aws.ebs.client import EbsDirect, NewSnapshot
from blockferry.aws.ebs.signing import Credentials
from blockferry.aws.ebs.transport import SignedHttp
from blockferry.aws.snapshots import has_volume
from blockferry.core.checksums import Linear, digest_of
from blockferry.core.errors import RequestRefused
from botocore.exceptions import ClientError
from botocore.httpsession import get_cert_path
from model_requests import breaches, service_model

BLOCK = 524_288
"""Bytes of a block: fixed."""

TAG = "blockferry:conformance"
"""Key of the tag on every snapshot that the suite makes, and the only thing by which it ever deletes one."""

UNKNOWN = "snap-00000000000000000"


@dataclass
class Place:
    """Where the suite runs. ``run_id`` is the tag's value; ``pause(seconds)`` waits for something to happen there.

    ``unchecked`` is another client of EBS direct, which sends whatever it is given.
    """

    ebs: Any
    ec2: Any
    run_id: str
    pause: Callable[[float], None]
    unchecked: Any
    made: list[str] = field(default_factory=list)

    def start(self, **more: Any) -> dict[str, Any]:
        """StartSnapshot of 1 GiB, tagged."""
        more.setdefault("ClientToken", uuid.uuid4().hex)
        wanted = {"VolumeSize": 1, "Timeout": 10, "Tags": [{"Key": TAG, "Value": self.run_id}], **more}
        answer: dict[str, Any] = self.ebs.start_snapshot(**wanted)
        if answer["SnapshotId"] not in self.made:
            self.made.append(answer["SnapshotId"])
        return answer

    def put(self, snapshot_id: str, index: int, data: bytes, **more: Any) -> dict[str, Any]:
        """PutSnapshotBlock with the right length and checksum, unless ``more`` says otherwise."""
        arguments = {"DataLength": len(data), "Checksum": sha256(data), "ChecksumAlgorithm": "SHA256", **more}
        # A put right after StartSnapshot may meet a snapshot that is not known everywhere yet.
        for _ in range(30):
            try:
                answer: dict[str, Any] = self.ebs.put_snapshot_block(
                    SnapshotId=snapshot_id, BlockIndex=index, BlockData=data, **arguments
                )
                return answer
            except ClientError as error:
                if error.response["Error"]["Code"] != "ResourceNotFoundException" or snapshot_id not in self.made:
                    raise
                self.pause(4)
        raise AssertionError(f"{snapshot_id} is still unknown")

    def complete(self, snapshot_id: str, count: int, *, linear: str | None = None) -> dict[str, Any]:
        more: dict[str, str] = {}
        if linear is not None:
            more = {"Checksum": linear, "ChecksumAlgorithm": "SHA256", "ChecksumAggregationMethod": "LINEAR"}
        answer: dict[str, Any] = self.ebs.complete_snapshot(SnapshotId=snapshot_id, ChangedBlocksCount=count, **more)
        return answer

    def describe(self, snapshot_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"][0]
        return found

    def settled(self, snapshot_id: str) -> str:
        """The state in which a snapshot ends."""
        for _ in range(90):
            state: str = self.describe(snapshot_id)["State"]
            if state != "pending":
                return state
            self.pause(4)
        raise AssertionError(f"{snapshot_id} is still pending")

    def snapshot(self, blocks: Mapping[int, bytes], **more: Any) -> str:
        """A completed snapshot into which these blocks were written."""
        snapshot_id: str = self.start(**more)["SnapshotId"]
        for index, data in blocks.items():
            self.put(snapshot_id, index, data)
        self.complete(snapshot_id, len(blocks))
        assert self.settled(snapshot_id) == "completed"
        return snapshot_id

    def pages(self, operation: str, **arguments: Any) -> list[dict[str, Any]]:
        found = [getattr(self.ebs, operation)(**arguments)]
        while found[-1].get("NextToken"):
            found.append(getattr(self.ebs, operation)(**arguments, NextToken=found[-1]["NextToken"]))
        return found

    def tokens(self, snapshot_id: str) -> dict[int, str]:
        pages = self.pages("list_snapshot_blocks", SnapshotId=snapshot_id)
        return {b["BlockIndex"]: b["BlockToken"] for page in pages for b in page["Blocks"]}

    def contents(self, snapshot_id: str) -> dict[int, bytes]:
        found = {}
        for index, token in self.tokens(snapshot_id).items():
            answer = self.ebs.get_snapshot_block(SnapshotId=snapshot_id, BlockIndex=index, BlockToken=token)
            found[index] = answer["BlockData"].read()
        return found

    def sweep(self) -> list[str]:
        """Delete what carries the tag of this run, and nothing else; ids that could not be deleted."""
        left = []
        filters = [{"Name": f"tag:{TAG}", "Values": [self.run_id]}]
        pages = self.ec2.get_paginator("describe_snapshots").paginate(OwnerIds=["self"], Filters=filters)
        for snapshot_id in [s["SnapshotId"] for page in pages for s in page["Snapshots"]]:
            try:
                self.ec2.delete_snapshot(SnapshotId=snapshot_id)
            except ClientError:
                left.append(snapshot_id)
        return left


def block(seed: int) -> bytes:
    """A block that only ``seed`` decides; 0 is all zeros."""
    return seed.to_bytes(8, "big") * (BLOCK // 8)


def sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def linear(blocks: Mapping[int, bytes]) -> str:
    """LINEAR: SHA-256 over the raw digests of the written blocks in index order."""
    digests = b"".join(hashlib.sha256(blocks[index]).digest() for index in sorted(blocks))
    return base64.b64encode(hashlib.sha256(digests).digest()).decode()


def status(answer: Mapping[str, Any]) -> int:
    return int(answer["ResponseMetadata"]["HTTPStatusCode"])


def refusal(call: Callable[[], Any]) -> tuple[int, str, str | None]:
    """HTTP status, code and Reason of the error that a call ends in."""
    with pytest.raises(ClientError) as caught:
        call()
    answer = caught.value.response
    return status(answer), answer["Error"]["Code"], answer.get("Reason")


FULL = {0: block(1), 1: block(0), 150: block(2), 2047: block(3)}
CHANGED = {0: block(9), 2: block(4)}


class EbsConformance:
    """Needs the fixtures ``place`` and, made once, ``full`` (holds FULL) and ``child`` (FULL under CHANGED)."""

    def test_start_answers_201_with_a_pending_snapshot(self, place: Place) -> None:
        answer = place.start(Description="shapes")
        assert status(answer) == 201
        assert (answer["Status"], answer["VolumeSize"], answer["BlockSize"]) == ("pending", 1, BLOCK)
        assert answer["SnapshotId"].startswith("snap-")
        assert answer["Description"] == "shapes"
        assert answer["OwnerId"].isdigit()

    def test_put_answers_201_and_echoes_the_checksum(self, place: Place) -> None:
        answer = place.put(place.start()["SnapshotId"], 5, block(1))
        assert (status(answer), answer["Checksum"], answer["ChecksumAlgorithm"]) == (201, sha256(block(1)), "SHA256")

    def test_complete_answers_202_and_pending(self, place: Place) -> None:
        snapshot_id = place.start()["SnapshotId"]
        place.put(snapshot_id, 0, block(1))
        answer = place.complete(snapshot_id, 1)
        assert (status(answer), answer["Status"]) == (202, "pending")

    def test_a_list_answers_200_with_ascending_blocks_and_their_expiry(self, place: Place, full: str) -> None:
        answer = place.ebs.list_snapshot_blocks(SnapshotId=full)
        assert status(answer) == 200
        assert [b["BlockIndex"] for b in answer["Blocks"]] == sorted(FULL)
        assert answer["BlockSize"] == BLOCK
        assert answer["ExpiryTime"].timestamp() > answer_date(answer)

    def test_allocated_zeros_are_listed_and_holes_are_not(self, place: Place, full: str) -> None:
        assert set(place.tokens(full)) == set(FULL)

    def test_get_answers_200_with_data_length_and_checksum(self, place: Place, full: str) -> None:
        token = place.tokens(full)[150]
        answer = place.ebs.get_snapshot_block(SnapshotId=full, BlockIndex=150, BlockToken=token)
        data = answer["BlockData"].read()
        assert (status(answer), answer["DataLength"]) == (200, BLOCK)
        assert data == FULL[150]
        assert (answer["Checksum"], answer["ChecksumAlgorithm"]) == (sha256(data), "SHA256")

    def test_a_list_from_an_index_starts_there(self, place: Place, full: str) -> None:
        answer = place.ebs.list_snapshot_blocks(SnapshotId=full, StartingBlockIndex=1)
        assert [b["BlockIndex"] for b in answer["Blocks"]] == [1, 150, 2047]

    def test_a_list_from_within_a_hole_starts_at_the_next_block(self, place: Place, full: str) -> None:
        pages = place.pages("list_snapshot_blocks", SnapshotId=full, StartingBlockIndex=151, MaxResults=100)
        assert [b["BlockIndex"] for page in pages for b in page["Blocks"]] == [2047]

    def test_pages_of_the_least_size_hold_every_block_once(self, place: Place, full: str) -> None:
        pages = place.pages("list_snapshot_blocks", SnapshotId=full, MaxResults=100)
        assert [b["BlockIndex"] for page in pages for b in page["Blocks"]] == sorted(FULL)

    def test_more_results_than_ten_thousand_are_refused(self, place: Place, full: str) -> None:
        found = refusal(lambda: place.ebs.list_snapshot_blocks(SnapshotId=full, MaxResults=10_001))
        assert found[:2] == (400, "ValidationException")

    def test_the_right_linear_checksum_is_accepted(self, place: Place) -> None:
        snapshot_id = place.start()["SnapshotId"]
        for index, data in CHANGED.items():
            place.put(snapshot_id, index, data)
        place.complete(snapshot_id, len(CHANGED), linear=linear(CHANGED))
        assert place.settled(snapshot_id) == "completed"

    def test_no_block_and_no_checksum_give_a_completed_snapshot(self, place: Place, full: str) -> None:
        for snapshot_id in (place.start()["SnapshotId"], place.start(ParentSnapshotId=full)["SnapshotId"]):
            place.complete(snapshot_id, 0)
            assert place.settled(snapshot_id) == "completed"

    def test_a_wrong_linear_checksum_never_gives_a_completed_snapshot(self, place: Place) -> None:
        snapshot_id = place.start()["SnapshotId"]
        place.put(snapshot_id, 0, block(1))
        assert never_completed(place, snapshot_id, 1, sha256(b"wrong"))

    def test_a_wrong_count_never_gives_a_completed_snapshot(self, place: Place) -> None:
        snapshot_id = place.start()["SnapshotId"]
        place.put(snapshot_id, 0, block(1))
        assert never_completed(place, snapshot_id, 2, None)

    def test_a_block_written_again_is_replaced_and_counts_once(self, place: Place) -> None:
        snapshot_id = place.start()["SnapshotId"]
        place.put(snapshot_id, 7, block(1))
        place.put(snapshot_id, 7, block(2))
        place.complete(snapshot_id, 1, linear=linear({7: block(2)}))
        assert place.settled(snapshot_id) == "completed"
        assert place.contents(snapshot_id) == {7: block(2)}

    def test_an_index_beyond_the_volume_is_refused(self, place: Place) -> None:
        snapshot_id = place.start()["SnapshotId"]
        place.put(snapshot_id, 2047, block(1))
        assert refusal(lambda: place.put(snapshot_id, 2048, block(1)))[:2] == (400, "ValidationException")

    def test_a_body_of_another_length_is_refused(self, place: Place) -> None:
        snapshot_id = place.start()["SnapshotId"]
        found = refusal(lambda: place.put(snapshot_id, 0, b"x" * 1024, DataLength=1024))
        assert found[:2] == (400, "ValidationException")

    def test_a_wrong_checksum_is_refused(self, place: Place) -> None:
        snapshot_id = place.start()["SnapshotId"]
        found = refusal(lambda: place.put(snapshot_id, 0, block(1), Checksum=sha256(block(2))))
        assert found[:2] == (400, "ValidationException")

    def test_the_token_of_another_block_is_refused(self, place: Place, full: str) -> None:
        token = place.tokens(full)[0]
        found = refusal(lambda: place.ebs.get_snapshot_block(SnapshotId=full, BlockIndex=150, BlockToken=token))
        assert found == (400, "ValidationException", "INVALID_BLOCK_TOKEN")

    def test_an_invented_page_token_is_refused(self, place: Place, full: str) -> None:
        found = refusal(lambda: place.ebs.list_snapshot_blocks(SnapshotId=full, NextToken="AAAA"))
        assert found == (400, "ValidationException", "INVALID_PAGE_TOKEN")

    def test_the_same_client_token_and_content_give_the_same_snapshot(self, place: Place) -> None:
        token = uuid.uuid4().hex
        first, second = place.start(ClientToken=token), place.start(ClientToken=token)
        assert first["SnapshotId"] == second["SnapshotId"]

    def test_the_same_client_token_with_other_content_conflicts(self, place: Place) -> None:
        token = uuid.uuid4().hex
        place.start(ClientToken=token)
        found = refusal(lambda: place.start(ClientToken=token, Description="another"))
        assert found[:2] == (409, "ConflictException")

    def test_a_pending_snapshot_cannot_be_listed(self, place: Place) -> None:
        snapshot_id = place.start()["SnapshotId"]
        place.put(snapshot_id, 0, block(1))
        found = refusal(lambda: place.ebs.list_snapshot_blocks(SnapshotId=snapshot_id))
        assert found[0] in (400, 404)

    def test_a_completed_snapshot_takes_no_block(self, place: Place, full: str) -> None:
        assert refusal(lambda: place.put(full, 3, block(1)))[0] in (400, 404)

    def test_an_unknown_snapshot_is_not_found(self, place: Place) -> None:
        found = refusal(lambda: place.ebs.list_snapshot_blocks(SnapshotId=UNKNOWN))
        assert found == (404, "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND")

    def test_a_child_holds_its_parents_blocks_where_nothing_was_written(self, place: Place, child: str) -> None:
        assert place.contents(child) == {**FULL, **CHANGED}

    def test_changed_blocks_have_both_tokens_where_the_content_differs(
        self, place: Place, full: str, child: str
    ) -> None:
        found = changes(place, full, child)
        assert found[0] == (True, True)
        assert set(found) == set(CHANGED)

    def test_changed_blocks_have_the_second_token_only_where_a_block_is_new(
        self, place: Place, full: str, child: str
    ) -> None:
        assert changes(place, full, child)[2] == (False, True)

    def test_changed_blocks_have_the_first_token_only_where_a_block_is_gone(
        self, place: Place, full: str, child: str
    ) -> None:
        assert changes(place, child, full)[2] == (True, False)

    def test_changed_blocks_of_unrelated_snapshots_are_refused(self, place: Place, full: str, stranger: str) -> None:
        found = refusal(
            lambda: place.ebs.list_changed_blocks(FirstSnapshotId=full, SecondSnapshotId=stranger, MaxResults=100)
        )
        assert found == (400, "ValidationException", "UNRELATED_SNAPSHOTS")

    def test_encrypted_and_a_parent_exclude_each_other(self, place: Place, full: str) -> None:
        found = refusal(lambda: place.start(ParentSnapshotId=full, Encrypted=False))
        assert found[:2] == (400, "ValidationException")

    def test_without_encrypted_the_accounts_default_decides(self, place: Place) -> None:
        default = place.ec2.get_ebs_encryption_by_default()["EbsEncryptionByDefault"]
        assert place.describe(place.start()["SnapshotId"])["Encrypted"] is default

    def test_encrypted_false_gives_an_unencrypted_snapshot_or_none_at_all(self, place: Place) -> None:
        """What was decided about holes for an unencrypted snapshot cannot end in an encrypted one."""
        if place.ec2.get_ebs_encryption_by_default()["EbsEncryptionByDefault"]:
            assert refusal(lambda: place.start(Encrypted=False))[:2] == (400, "ValidationException")
        else:
            assert place.describe(place.start(Encrypted=False)["SnapshotId"])["Encrypted"] is False

    def test_a_snapshot_of_the_direct_apis_is_of_no_volume(self, place: Place, full: str) -> None:
        """By this, and by tags, we know that its holes may stand for zeros."""
        assert not has_volume(place.describe(full)["VolumeId"])

    def test_encrypted_without_a_key_gives_a_key_that_start_and_ec2_both_name(self, place: Place) -> None:
        started = place.start(Encrypted=True)
        found = place.describe(started["SnapshotId"])
        assert found["Encrypted"] is True
        assert found["KmsKeyId"] == started["KmsKeyArn"]
        assert found["KmsKeyId"].startswith("arn:")

    def test_a_child_has_its_parents_encryption(self, place: Place) -> None:
        parent = place.snapshot({0: block(1)}, Encrypted=True)
        started = place.start(ParentSnapshotId=parent)
        assert place.describe(started["SnapshotId"])["KmsKeyId"] == place.describe(parent)["KmsKeyId"]

    def test_tags_and_description_are_those_that_were_given(self, place: Place) -> None:
        tags = [{"Key": TAG, "Value": place.run_id}, {"Key": "colour", "Value": "blue"}]
        found = place.describe(place.start(Tags=tags, Description="tagged")["SnapshotId"])
        assert sorted(found["Tags"], key=lambda tag: tag["Key"]) == tags
        assert found["Description"] == "tagged"

    def test_what_breaks_a_constraint_of_the_model_is_refused(self, place: Place) -> None:
        model = service_model("ebs")
        for name in model.operation_names:
            for breach in breaches(model.operation_model(name)):
                if (breach.path, breach.kind) == (("MaxResults",), "range"):
                    continue  # fewer than 100 are taken for 100; more than 10,000: a test of its own
                found = refusal(lambda: place.unchecked._make_api_call(name, breach.parameters))  # noqa: B023
                assert found[:2] == (400, "ValidationException"), f"{name} {breach}: {found}"

    def test_an_empty_description_is_refused_and_none_is_not(self, place: Place) -> None:
        found = refusal(lambda: place.unchecked.start_snapshot(VolumeSize=1, Description=""))
        assert found[:2] == (400, "ValidationException")
        assert place.describe(place.start()["SnapshotId"])["Description"] == ""

    def test_ec2_tells_size_state_owner_and_start(self, place: Place, full: str) -> None:
        found = place.describe(full)
        assert (found["VolumeSize"], found["State"]) == (1, "completed")
        assert found["OwnerId"].isdigit()
        assert found["StartTime"].tzinfo is not None

    def test_a_deleted_snapshot_is_gone_and_its_child_stays_whole(self, place: Place) -> None:
        parent = place.snapshot({0: block(1), 1: block(2)})
        heir = place.snapshot({1: block(3)}, ParentSnapshotId=parent)
        place.ec2.delete_snapshot(SnapshotId=parent)
        assert refusal(lambda: place.describe(parent))[1] == "InvalidSnapshot.NotFound"
        assert place.contents(heir) == {0: block(1), 1: block(3)}

    def test_every_operation_takes_the_form_in_which_this_software_signs_it(self, place: Place) -> None:
        ebs = direct(place)
        data = {0: block(1), 5: block(2)}
        started = ebs.start_snapshot(NewSnapshot(1, uuid.uuid4().hex, "signed", {TAG: place.run_id}))
        place.made.append(started.snapshot_id)
        linear = Linear()
        for index, each in data.items():
            ebs.put_block(started.snapshot_id, index, each, digest_of(each))
            linear.add(index, digest_of(each))
        ebs.complete_snapshot(started.snapshot_id, changed_blocks=2, linear_checksum=linear.value())
        assert place.settled(started.snapshot_id) == "completed"
        child = place.snapshot({5: block(3)}, ParentSnapshotId=started.snapshot_id)
        listed = dict(ebs.list_blocks(started.snapshot_id).entries)
        assert {n: ebs.get_block(started.snapshot_id, n, token)[0] for n, token in listed.items()} == data
        assert [change.index for change in ebs.list_changed_blocks(started.snapshot_id, child).entries] == [5]

    def test_a_wrong_signature_is_final(self, place: Place, full: str) -> None:
        with pytest.raises(RequestRefused, match="InvalidSignatureException: The request signature we calculated does"):
            direct(place, secret="wrong").list_blocks(full)

    @pytest.mark.parametrize("minutes", [-60, 60])
    def test_a_wrong_time_is_told_and_signed_again(self, place: Place, full: str, minutes: int) -> None:
        ebs = direct(place, ahead=timedelta(minutes=minutes))
        assert ebs.list_blocks(full).entries
        assert ebs.counts.retries == {"ListSnapshotBlocks InvalidSignatureException": 1}

    @pytest.mark.parametrize("minutes", [-4, 4])
    def test_a_clock_may_be_some_minutes_wrong(self, place: Place, full: str, minutes: int) -> None:
        ebs = direct(place, ahead=timedelta(minutes=minutes))
        assert ebs.list_blocks(full).entries
        assert ebs.counts.retries == {}


def direct(place: Place, *, secret: str | None = None, ahead: timedelta = timedelta()) -> EbsDirect:
    """This software's own client with the place's credentials. ``ahead``: how wrong its clock is."""
    found = place.ebs._get_credentials().get_frozen_credentials()
    credentials = Credentials(found.access_key, secret or found.secret_key, found.token)
    http = SignedHttp(
        endpoint_url=place.ebs.meta.endpoint_url,
        region=place.ebs.meta.region_name,
        credentials=lambda: credentials,
        trust_store=get_cert_path(True),
        now=lambda: datetime.now(UTC) + ahead,
    )
    return EbsDirect(http, region=place.ebs.meta.region_name)


def answer_date(answer: Mapping[str, Any]) -> float:
    """When the service sent the answer, by its own clock if it says so; else 0."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(date).timestamp() if date else 0.0


def never_completed(place: Place, snapshot_id: str, count: int, checksum: str | None) -> bool:
    """Refused at once, or in state error later: which of them is not documented."""
    try:
        place.complete(snapshot_id, count, linear=checksum)
    except ClientError as error:
        return status(error.response) == 400
    return place.settled(snapshot_id) == "error"


def changes(place: Place, first: str, second: str) -> dict[int, tuple[bool, bool]]:
    """Index to (has a first token, has a second token)."""
    pages = place.pages("list_changed_blocks", FirstSnapshotId=first, SecondSnapshotId=second)
    return {
        b["BlockIndex"]: ("FirstBlockToken" in b, "SecondBlockToken" in b)
        for page in pages
        for b in page["ChangedBlocks"]
    }

"""Working with the local cloud in tests: snapshots in, executions watched, blocks out."""

from __future__ import annotations

import hashlib
import json
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import boto3
from blockferry.aws.ebs.client import NewSnapshot
from blockferry.aws.sessions import Aws, Identity
from blockferry.cli.operate import JobState, Operator
from blockferry.core.checksums import ZERO_DIGEST, Linear, digest_of
from blockferry.core.counts import RequestCounts
from fakes import content
from localcloud.ebs.patterns import pattern_block
from localcloud.state import CloudInfo

PATIENCE_SECONDS = 240.0
"""A stuck execution fails its test after this long; none that works takes a quarter of it."""


PALETTE = [content(seed) for seed in range(1, 98)]
"""97 different blocks, a prime number: a block in the wrong place of a long copy is noticed."""


def filled(count: int) -> dict[int, bytes]:
    return {index: PALETTE[index % len(PALETTE)] for index in range(count)}


@dataclass
class CloudRig:
    info: CloudInfo
    jobs: int = 0

    @property
    def home(self) -> str:
        return self.info.regions[0]

    @property
    def recovery(self) -> str:
        return self.info.regions[1]

    @cached_property
    def operator(self) -> Operator:
        """Made once: every wait for a job asks it twenty times a second."""
        return Operator.of(region=self.home)

    def session(self, account: str | None = None) -> boto3.Session:
        """As the root of another account, or as whom the environment names."""
        keys = {"aws_access_key_id": account, "aws_secret_access_key": self.info.secret_access_key}
        return boto3.Session(**keys) if account else boto3.Session()

    def client(self, service: str, region: str | None = None, **more: Any) -> Any:
        return boto3.client(service, region_name=region or self.home, **more)

    def control(self, path: str, body: Any = None, *, method: str | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.info.endpoint_url}/_local/{path}",
            data,
            method=method or ("GET" if body is None else "POST"),
            headers=self.info.keys.control_headers(),
        )
        with urllib.request.urlopen(request) as answer:
            return json.loads(answer.read() or b"null")

    def post(self, path: str, data: bytes) -> None:
        """Send bytes to the control endpoint."""
        url, headers = f"{self.info.endpoint_url}/_local/{path}", self.info.keys.control_headers()
        request = urllib.request.Request(url, data, method="POST", headers=headers)
        with urllib.request.urlopen(request):
            pass

    def clear_faults(self) -> None:
        self.control("ebs/faults", method="DELETE")
        self.control("lambda/faults", method="DELETE")
        self.control("faults", method="DELETE")

    def snapshot(
        self, blocks: Mapping[int, bytes], *, size_gib: int = 1, account: str | None = None, **more: Any
    ) -> str:
        """A completed snapshot in the home region that holds exactly ``blocks``."""
        session = self.session(account)
        ebs = Aws(base=session).ebs(Identity(self.home), counts=RequestCounts())
        token = hashlib.sha256(f"{time.monotonic_ns()}".encode()).hexdigest()
        snapshot_id = ebs.start_snapshot(NewSnapshot(size_gib, token, "", {}, **more)).snapshot_id
        known = {id(data): digest_of(data) for data in {id(data): data for data in blocks.values()}.values()}
        linear = Linear()
        for index in sorted(blocks):
            linear.add(index, known[id(blocks[index])])
        with ThreadPoolExecutor(4) as pool:
            for _ in pool.map(lambda i: ebs.put_block(snapshot_id, i, blocks[i], known[id(blocks[i])]), blocks):
                pass
        ebs.complete_snapshot(snapshot_id, changed_blocks=len(blocks), linear_checksum=linear.value())
        self.until(lambda: self.facts(snapshot_id)["state"] == "completed")
        return snapshot_id

    def image_of(self, snapshot_id: str) -> dict[int, str]:
        """What a volume of the snapshot reads: index to SHA-256 (hex) of every block that is not all zeros."""
        zero = ZERO_DIGEST.hex()
        return {index: digest for index, digest in self.held(snapshot_id).items() if digest != zero}

    def facts(self, snapshot_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.control(f"ebs/snapshots/{snapshot_id}")
        return found

    def held(self, snapshot_id: str) -> dict[int, str]:
        """Allocated blocks as the EBS server holds them: index to SHA-256 (hex)."""
        return dict(self.control(f"ebs/snapshots/{snapshot_id}/raw-index")["blocks"])

    def snapshots(self) -> dict[str, str]:
        return {s["snapshot_id"]: s["state"] for s in self.control("ebs/snapshots")["snapshots"]}

    def start(self, request: Mapping[str, Any], *, operation: str = "copy") -> str:
        self.jobs += 1
        return self.operator.start(operation, request, job_id=f"test-{self.jobs}-{time.monotonic_ns()}")

    def ended(self, arn: str) -> JobState:
        """Wait for the end of an execution."""
        state: list[JobState] = []

        def over() -> bool:
            state[:] = [self.operator.state(arn)]
            return not state[0].running

        self.until(over)
        return state[0]

    def copy(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return self.run("copy", request)

    def run(self, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """A whole job that has to succeed; returns its receipt."""
        state = self.ended(self.start(request, operation=operation))
        assert state.status == "SUCCEEDED", f"{state.error}: {state.cause}"
        receipt: dict[str, Any] = state.output
        return receipt

    @contextmanager
    def instance(self, **tags: str) -> Iterator[str]:
        """An instance that boots from one volume, with a tagged one attached to it as /dev/sdf. At the end it asks for
        nothing any more."""
        ec2 = self.client("ec2")
        made = ec2.run_instances(
            ImageId=ec2.describe_images()["Images"][0]["ImageId"],
            MinCount=1,
            MaxCount=1,
            InstanceType="t3.micro",
            TagSpecifications=[
                {"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
            ],
        )["Instances"][0]
        data = ec2.create_volume(
            AvailabilityZone=made["Placement"]["AvailabilityZone"],
            Size=1,
            TagSpecifications=[{"ResourceType": "volume", "Tags": [{"Key": "Role", "Value": "db"}]}],
        )["VolumeId"]
        ec2.attach_volume(VolumeId=data, InstanceId=made["InstanceId"], Device="/dev/sdf")
        try:
            yield made["InstanceId"]
        finally:
            ec2.delete_tags(Resources=[made["InstanceId"]], Tags=[{"Key": key} for key in tags])

    @contextmanager
    def bucket(self, *, account: str | None = None, kms_key_arn: str | None = None) -> Iterator[str]:
        """A bucket of an account's own in the home region, gone with all in it at the end. What is put into it is
        encrypted with the key, if there is one."""
        session = self.session(account)
        s3, name = session.client("s3", region_name=self.home), f"images-{time.monotonic_ns()}"
        s3.create_bucket(Bucket=name)
        if kms_key_arn is not None:
            default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": kms_key_arn}
            rules = {"Rules": [{"ApplyServerSideEncryptionByDefault": default}]}
            s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration=rules)
        try:
            yield name
        finally:
            for item in s3.list_objects_v2(Bucket=name).get("Contents", []):
                s3.delete_object(Bucket=name, Key=item["Key"])
            s3.delete_bucket(Bucket=name)

    def patterned(self, count: int, *, size_gib: int) -> tuple[str, dict[int, str]]:
        """A completed snapshot of a volume whose first blocks are filled, by the server itself, and what it holds:
        index to SHA-256 (hex). 97 different blocks, a prime number, as in ``PALETTE``."""
        volume = f"vol-{time.monotonic_ns():017x}"
        facts = {"volume_id": volume, "owner": self.info.account_id, "region": self.home, "size": size_gib}
        self.control("ebs/volumes", facts)
        self.control(f"ebs/volumes/{volume}/fill", {"seed": 1, "count": count, "distinct": len(PALETTE)})
        snapshot_id: str = self.client("ec2").create_snapshot(VolumeId=volume)["SnapshotId"]
        self.until(lambda: self.facts(snapshot_id)["state"] == "completed")
        self.control(f"ebs/volumes/{volume}", method="DELETE")
        digests = [hashlib.sha256(pattern_block(1, number)).hexdigest() for number in range(len(PALETTE))]
        return snapshot_id, {index: digests[index % len(PALETTE)] for index in range(count)}

    @staticmethod
    def until(condition: Callable[[], bool], *, within: float = PATIENCE_SECONDS) -> None:
        """Wait for a condition that another process brings about; fail the test when it does not come."""
        deadline = time.monotonic() + within
        while not condition():
            assert time.monotonic() < deadline, f"not within {within} s"
            time.sleep(0.05)

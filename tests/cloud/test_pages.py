"""The commands of the first pages, typed in their order, do what the pages say.

A shell runs every line of a block in the folder of a checkout, unless ``NOT_RUN`` says why it cannot be: a new line is
run without a word here. Names in capitals, and the made-up ones of ``EXAMPLES``, are filled with what the outputs of
earlier lines named (``TOLD``), or else with what a method of ``Reader`` makes when a line first asks for it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pytest
import zstandard
from cloud_rig import CloudRig, filled
from localcloud.lifecycle import terraform_of, terraform_variables
from localcloud.state import DIRECTORY_VARIABLE, CloudDirectory
from pages import ROOT, block_lines, quoted_lines
from rig import hashes
from tools.build import build, local_architecture, local_runtime
from tools.terraform import terraform_environment

MINUTES = "takes minutes; test_demo.py runs its steps"
INSTALLS = "fetches packages from an index"
OTHERS_USE_IT = "the other tests need what it ends; the fixture of all tests does it when they are done"
NOT_RUN = {
    "scripts/demo": MINUTES,
    "scripts/demo --keep": MINUTES,
    "scripts/test": "runs this test",
    "scripts/cloud down": OTHERS_USE_IT,
    "terraform -chdir=terraform destroy -var home_region=us-east-1 -var recovery_region=eu-west-1": OTHERS_USE_IT,
    "scripts/build": INSTALLS + "; the part build of scripts/test runs it",
    "pipx install .": INSTALLS,
    "pipx install --force .": INSTALLS,
    "aws service-quotas request-service-quota-increase --service-code lambda --quota-code L-B99A9384 "
    "--desired-value 1000": "the local cloud has no Service Quotas",
    "terraform -chdir=terraform/examples/one-region init": "for an account; its own tests plan it",
    "terraform -chdir=terraform/examples/one-region apply -var home_region=eu-central-1": "as init",
    "for prefix in disks/snap-0123456789abcdef0-1a2b3c4d/segments/; do aws s3api list-objects-v2 --bucket my-archives "
    "--prefix \"$prefix\" --query 'Contents[].[Key]' --output text | tr '\\n' '\\0' | xargs -0 -P 16 -I{} aws s3api "
    "restore-object --bucket my-archives --key {} --restore-request Days=7; done": "nothing is in a cold class",
    "blockferry archive /dev/nvme1n1 --to s3://my-archives/disks --base auto --dry-run": "few machines have it; "
    "test_archive.py archives a device that it makes",
    "blockferry discard s3://my-archives/disks/disk.img-1a2b3c4d/": "no run has left anything there",
    "blockferry verify s3://BUCKET/snap-0123456789abcdef0.8/ --wait": "of another tool; test_verify_foreign.py has one",
}
"""Lines, without their comments, that are not typed, each with the reason."""

EXAMPLES = {
    r"snap-[0-9a-f]{17}-1a2b3c4d": "ID",
    r"snap-0123456789abcdef0|snap-A": "MONDAY",
    r"snap-0fedcba9876543210|snap-B": "TUESDAY",
    r"snap-C": "COPY",
    r"my-images": "IMAGES",
    r"my-archives": "ARCHIVES",
    r"s3://BUCKET/PREFIX/ARCHIVE": "s3://ARCHIVES/disks/ID",
}
"""What stands for names that pages make up."""

TOLD = {
    "COPY": re.compile(r"^target +(snap-\w+) in eu-west-1, completed", re.MULTILINE),
    "ID": re.compile(r"^target +s3://[^/]+/disks/([^/]+)/manifest.json in", re.MULTILINE),
}
"""What later lines take from the outputs of those before."""

BLOCKS = filled(40)
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "arn:aws:iam::111122223333:root"}}
    ],
}
STATUSES = {"blockferry status": 3}
"""Of commands that tell something by another exit status than 0: the job is running."""


class Reader:
    """Who types the lines of a page, in a checkout of their own."""

    def __init__(
        self, cloud: CloudRig, directory: CloudDirectory, folder: Path, *, environment: dict[str, str]
    ) -> None:
        self.cloud, self.folder = cloud, folder
        self._exported = folder.parent / "exported"
        self._nights = 0
        self._told: dict[str, str] = {}
        self._started: list[str] = []
        self._environment = environment | {DIRECTORY_VARIABLE: str(directory.path)}

    def types(self, line: str) -> None:
        """Run a line, and look at how it ends."""
        script = f". {self._exported}; {self.fill(line)}\nended=$?; export -p >{self._exported}; exit $ended"
        self._exported.touch()
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=self._environment, capture_output=True, text=True, check=False
        )
        expected = next((status for begin, status in STATUSES.items() if line.startswith(begin) and ";" not in line), 0)
        assert done.returncode == expected, f"{line}\n{script}\n{done.stdout}{done.stderr}"
        for name, pattern in TOLD.items():
            for found in pattern.findall(done.stdout):
                self._told[name] = found
        self._started += re.findall(r"^(?:started|resumed) (\S+)$", done.stdout, re.MULTILINE)

    def fill(self, line: str) -> str:
        """The line with what its names stand for. Fails for one of which nothing is known."""
        for example, name in EXAMPLES.items():
            line = re.sub(example, name, line)
        return re.sub(
            r"(?<![\w-])[A-Z]{2,}(?![\w-])", lambda name: self._told.get(name[0]) or self._made(name[0]), line
        )

    def _made(self, name: str) -> str:
        assert hasattr(self, name.lower()), f"nobody knows what {name} stands for"
        return str(getattr(self, name.lower()))

    def leaves_no_job_behind(self) -> None:
        """Jobs that nobody waited for end well, too."""
        for job_id in self._started:
            state = self.cloud.ended(self.cloud.operator.find(job_id).arn)
            assert state.status == "SUCCEEDED", f"{job_id}: {state.error}: {state.cause}"

    def has_what_was_copied(self) -> None:
        """The last copy and the restored images hold what their source does."""
        if made := self._told.get("COPY"):
            tags = self.cloud.facts(made)["tags"]
            if "blockferry:source-image" in tags:
                assert self.cloud.held(made) == hashes(BLOCKS)
            else:
                source = tags["blockferry:source-snapshot-id"]
                assert self.cloud.image_of(made) == self.cloud.image_of(source)
        for image_file in self.folder.glob("*.img"):
            assert image_file.read_bytes()[: len(image())] == image(), image_file.name

    @cached_property
    def _volume(self) -> str:
        made: str = self.cloud.client("ec2").create_volume(Size=1, AvailabilityZone=f"{self.cloud.home}a")["VolumeId"]
        for index, data in BLOCKS.items():
            self.cloud.post(f"ebs/volumes/{made}/blocks/{index}", data)
        return made

    def _night(self) -> str:
        made: str = self.cloud.client("ec2").create_snapshot(VolumeId=self._volume)["SnapshotId"]
        self.cloud.until(lambda: self.cloud.facts(made)["state"] == "completed")
        return made

    @cached_property
    def monday(self) -> str:
        return self._night()

    @property
    def snapshot(self) -> str:
        return self.monday

    @property
    def tuesday(self) -> str:
        """A night of its own for each line, so that each has something to do."""
        assert self.monday
        self._nights += 1
        self.cloud.post(f"ebs/volumes/{self._volume}/blocks/{1000 + self._nights}", BLOCKS[self._nights])
        return self._night()

    @cached_property
    def copy(self) -> str:
        """In both Regions in which pages want copies."""
        targets = [{"region": region} for region in (self.cloud.recovery, "ap-southeast-2")]
        return str(self.cloud.copy({"snapshot_id": self.monday, "targets": targets})["targets"][0]["snapshot_id"])

    @cached_property
    def archives(self) -> str:
        return self.cloud.info.buckets[self.cloud.home]["archive"]

    @cached_property
    def id(self) -> str:
        place = {"bucket": self.archives, "prefix": "disks"}
        receipt = self.cloud.run("archive", {"snapshot_id": self.monday, "archive": place})
        return str(receipt["manifest_uri"]).split("/")[-2]

    @cached_property
    def images(self) -> str:
        """A bucket with the images that pages read from S3."""
        s3, name = self.cloud.client("s3"), f"pages-{time.monotonic_ns()}"
        s3.create_bucket(Bucket=name)
        packed = zstandard.compress(image())
        for key in ("disk.img.zst", "golden/disk.img.zst"):
            s3.put_object(Bucket=name, Key=key, Body=packed)
        return name

    @cached_property
    def role(self) -> str:
        name = f"pages-{time.monotonic_ns()}"
        self.cloud.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))
        return name

    @cached_property
    def job(self) -> str:
        """A job that runs until its fault is taken away: writes to its Region take their time."""
        slow = {"operation": "PutSnapshotBlock", "region": "sa-east-1", "action": "latency", "latency_ms": 400}
        self.cloud.control("ebs/faults", slow)
        source, _ = self.cloud.patterned(1200, size_gib=1)
        arn = self.cloud.start({"snapshot_id": source, "targets": [{"region": "sa-east-1"}]})
        self.cloud.until(lambda: self.cloud.operator.moving(arn) is not None)
        self._started.append(arn.rsplit(":", 1)[-1])
        return self._started[-1]

    def clears_up(self) -> None:
        """Delete what Terraform does not know, and would meet when it destroys."""
        made = vars(self)
        if "role" in made:
            iam = self.cloud.client("iam")
            for policy in iam.list_attached_role_policies(RoleName=self.role)["AttachedPolicies"]:
                iam.detach_role_policy(RoleName=self.role, PolicyArn=policy["PolicyArn"])
            iam.delete_role(RoleName=self.role)
        if "images" in made:
            s3 = self.cloud.client("s3")
            for item in s3.list_objects_v2(Bucket=self.images)["Contents"]:
                s3.delete_object(Bucket=self.images, Key=item["Key"])
            s3.delete_bucket(Bucket=self.images)


def image() -> bytes:
    return b"".join(BLOCKS.values())


@pytest.fixture
def reader(cloud: CloudRig, directory: CloudDirectory, tmp_path: Path) -> Iterator[Reader]:
    """In a checkout whose Terraform has been applied to the local cloud, with the command on the path."""
    folder, programs = tmp_path / "checkout", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    terraform = terraform_of(directory, cloud.info)
    for path in (path for path in ROOT.iterdir() if path.name not in ("terraform", "build", ".cloud")):
        (folder / path.name).symlink_to(path)
    (folder / "terraform").symlink_to(terraform.module)
    (programs / "blockferry").symlink_to(ROOT / ".venv" / "bin" / "blockferry")
    (folder / "disk.img").write_bytes(image())

    artifacts = build(runtime=local_runtime(), architecture=local_architecture())
    variables = terraform_variables(cloud.info, artifacts)
    environment = terraform_environment(directory.terraform, dict(os.environ))
    environment |= {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "AWS_CONFIG_FILE": os.devnull}
    # What is local about the deployment, and that all of it is known to be there: a page says neither.
    environment |= {f"TF_VAR_{name}": json.dumps(value) for name, value in variables.items() if name == "lambda"}
    environment |= {
        "TF_VAR_artifacts_dir": str(artifacts.output),
        "TF_VAR_trusted_role_arns": json.dumps(variables["trusted_role_arns"]),
        "TF_VAR_archive_bucket_names": "null",
        "TF_VAR_restore_bucket_names": "null",
        "TF_VAR_backups": json.dumps(variables["backups"]),
        "TF_VAR_force_destroy": "true",
        "TF_CLI_ARGS_apply": "-refresh=false",
    }
    one = Reader(cloud, directory, folder, environment=environment)
    (folder / "job.json").write_text(json.dumps({"snapshot_id": one.monday, "targets": [{"region": cloud.recovery}]}))
    yield one
    one.clears_up()


def lines_of(page: str) -> list[str]:
    """The lines to type, without their comments and with one space between words."""
    lines = (re.sub(r"\s+", " ", re.sub(r"(^|\s)#\s.*", "", line)).strip() for line in block_lines(ROOT / page))
    return [line for line in lines if line]


PAGES = [
    "README.md",
    *(
        f"docs/{name}.md"
        for name in (
            "getting-started",
            "sync",
            "fanout",
            "archive",
            "upload",
            "verify",
            "backup",
            "replicate",
            "expire",
        )
    ),
]


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_to_type_works_in_its_order(reader: Reader, page: str) -> None:
    for line in lines_of(page):
        if line not in NOT_RUN:
            reader.types(line)
    reader.cloud.clear_faults()
    reader.leaves_no_job_behind()
    reader.has_what_was_copied()


def test_what_the_runbook_says_to_type_works(reader: Reader) -> None:
    lines = [line for line in quoted_lines(ROOT / "docs/runbook.md") if " -" in line or "JOB" in line]
    assert len(lines) >= 8
    for line in lines:
        running = reader.cloud.operator.find(reader.job).running
        if "resume" in line and running:
            reader.types("blockferry stop JOB")
        reader.types(line)
    reader.cloud.clear_faults()
    reader.leaves_no_job_behind()
    reader.has_what_was_copied()


def test_every_line_that_is_not_run_stands_in_a_page() -> None:
    assert NOT_RUN.keys() <= {line for page in PAGES for line in lines_of(page)}

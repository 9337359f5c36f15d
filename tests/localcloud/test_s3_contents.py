"""Contents of objects in files: what is read is what was written, and memory stays small."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lambda_probe import wait_until
from localcloud.s3.bodies import IN_MEMORY, BodyStore, joined
from server_probe import RunningServer, running_server

from .s3_clients import BUCKET, MIB, PART, content, noise, refused, upload

SEGMENT = 16 * MIB


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        running.client("s3").create_bucket(Bucket=BUCKET)
        running.client("s3").create_bucket(Bucket="versions")
        running.client("s3").put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
        yield running


@pytest.fixture(scope="module")
def s3(server: RunningServer) -> Any:
    return server.client("s3")


def files(server: RunningServer) -> int:
    """Bytes in files of objects."""
    return sum(path.stat().st_size for path in (server.folder / "data" / "s3").iterdir())


def memory(server: RunningServer) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found.group(1)) * 1024


def test_contents_are_on_disk_and_not_in_memory(server: RunningServer, s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="warm", Body=noise(SEGMENT))
    before, on_disk = memory(server), files(server)
    for number in range(24):
        body = bytes([number]) * SEGMENT
        s3.put_object(Bucket=BUCKET, Key=f"segments/{number}", Body=body, ChecksumAlgorithm="SHA256")
    assert files(server) - on_disk == 24 * SEGMENT
    assert memory(server) - before < 6 * SEGMENT
    assert content(s3, Bucket=BUCKET, Key="segments/7") == bytes([7]) * SEGMENT


@pytest.mark.parametrize("size", [0, 1, IN_MEMORY, IN_MEMORY + 1, 5 * MIB])
def test_an_object_of_any_size_is_read_as_it_was_written(s3: Any, size: int) -> None:
    s3.put_object(Bucket=BUCKET, Key="sized", Body=noise(size))
    assert content(s3, Bucket=BUCKET, Key="sized") == noise(size)
    assert s3.head_object(Bucket=BUCKET, Key="sized")["ContentLength"] == size


def test_the_file_of_what_is_replaced_or_deleted_goes(server: RunningServer, s3: Any) -> None:
    before = files(server)
    s3.put_object(Bucket=BUCKET, Key="brief", Body=noise(MIB))
    s3.put_object(Bucket=BUCKET, Key="brief", Body=noise(2 * MIB))
    assert files(server) == before + 2 * MIB
    s3.copy_object(Bucket=BUCKET, Key="copied", CopySource={"Bucket": BUCKET, "Key": "brief"})
    s3.delete_object(Bucket=BUCKET, Key="brief")
    assert content(s3, Bucket=BUCKET, Key="copied") == noise(2 * MIB)
    s3.delete_object(Bucket=BUCKET, Key="copied")
    assert files(server) == before


def test_the_files_of_an_aborted_upload_go(server: RunningServer, s3: Any) -> None:
    before = files(server)
    pending = upload(s3, [noise(PART), noise(MIB)], key="aborted")
    assert files(server) == before + PART + MIB
    s3.abort_multipart_upload(Bucket=BUCKET, Key="aborted", UploadId=pending["UploadId"])
    assert files(server) == before


def test_an_object_that_is_deleted_while_it_is_read_is_read_to_its_end(server: RunningServer, s3: Any) -> None:
    before = files(server)
    s3.put_object(Bucket=BUCKET, Key="going", Body=noise(SEGMENT))
    body = s3.get_object(Bucket=BUCKET, Key="going")["Body"]
    first = body.read(MIB)
    s3.delete_object(Bucket=BUCKET, Key="going")
    assert first + body.read() == noise(SEGMENT)
    wait_until(lambda: files(server) == before, "the file is gone", 10)


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        (f"bytes={PART - 3}-{PART + 2}", PART - 3, PART + 2),
        (f"bytes={PART}-", PART, PART + MIB - 1),
        ("bytes=-5", PART + MIB - 5, PART + MIB - 1),
        (f"bytes=5-{99 * MIB}", 5, PART + MIB - 1),
    ],
)
@pytest.mark.parametrize("version", ["current", "older"])
def test_a_range_is_read_across_parts_in_every_version(
    s3: Any, wanted: str, first: int, last: int, version: str
) -> None:
    parts = [noise(PART, 1), noise(MIB, 2)]
    where = {"Bucket": "versions", "Key": f"ranges/{version}/{first}-{last}"}
    written = s3.complete_multipart_upload(**upload(s3, parts, key=where["Key"], bucket="versions"))
    if version == "older":
        s3.put_object(**where, Body=b"newer")
    answer = s3.get_object(**where, VersionId=written["VersionId"], Range=wanted)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert answer["ContentRange"] == f"bytes {first}-{last}/{PART + MIB}"
    assert answer["ContentLength"] == last - first + 1
    assert answer["VersionId"] == written["VersionId"]
    assert answer["Body"].read() == b"".join(parts)[first : last + 1]


def test_a_range_behind_the_end_is_refused_in_every_version(s3: Any) -> None:
    older = s3.put_object(Bucket="versions", Key="short", Body=b"12345")["VersionId"]
    newer = s3.put_object(Bucket="versions", Key="short", Body=b"12345")["VersionId"]
    for version in (older, newer):
        where = {"Bucket": "versions", "Key": "short", "VersionId": version}
        assert refused(s3.get_object, **where, Range="bytes=5-9") == (416, "InvalidRange")


@given(pieces=st.lists(st.binary(max_size=40), max_size=6), data=st.data())
def test_a_slice_of_joined_bodies_is_that_of_their_bytes(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], data: st.DataObject
) -> None:
    store = BodyStore(tmp_path_factory.mktemp("bodies") / "store")
    scale = IN_MEMORY // 20  # so that some pieces are in files and some are not
    grown = [piece * scale for piece in pieces]
    body, whole = joined(store.keep(piece) for piece in grown), b"".join(grown)
    start = data.draw(st.integers(0, len(whole) + 2))
    stop = data.draw(st.integers(start, len(whole) + 2))
    assert bytes(body[start:stop]) == whole[start:stop]
    assert len(body[start:stop]) == len(whole[start:stop])
    assert b"".join(body[start:stop].chunks(100)) == whole[start:stop]

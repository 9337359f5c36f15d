"""Every file that is no raw disk, at every door that takes one: refused by name, with nothing started."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lz4.frame
import pytest
import zstandard
from blockferry.cli import main as cli
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.errors import InvalidRequest
from blockferry.local.upload import upload_image
from image_files import ALL, PACKED
from rig import HOME, RECOVERY, Rig, hashes, running_rig

IMAGES = "golden-images"

CODECS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": (".gz", gzip.compress),
    "zstd": (".zst", zstandard.compress),
    "xz": (".xz", lzma.compress),
    "bzip2": (".bz2", bz2.compress),
    "lz4": (".lz4", lz4.frame.compress),
}


@pytest.fixture(scope="module")
def shared() -> Iterator[Rig]:
    with pytest.MonkeyPatch.context() as patch, running_rig(patch) as made:
        made.aws.s3(HOME).create_bucket(Bucket=IMAGES)
        yield made


@pytest.fixture
def rig(shared: Rig) -> Iterator[Rig]:
    shared.control("stats/reset", {})
    yield shared
    assert shared.calls().get("StartSnapshot", 0) == 0


def refused_upload(rig: Rig, path: Path) -> str:
    with pytest.raises(InvalidRequest) as caught:
        upload_image(path, region=HOME, aws=rig.aws)
    return str(caught.value)


def refused_fanout(rig: Rig, key: str, body: bytes, **more: Any) -> str:
    rig.aws.s3(HOME).put_object(Bucket=IMAGES, Key=key, Body=body)
    wanted = {"image_uri": f"s3://{IMAGES}/{key}", "targets": [{"region": RECOVERY}], **more}
    with pytest.raises(InvalidRequest) as caught:
        rig.run("fanout", wanted)
    return str(caught.value)


@pytest.mark.parametrize("name", ALL)
def test_upload_refuses_a_file(rig: Rig, tmp_path: Path, name: str) -> None:
    sample = ALL[name]
    path = tmp_path / "disk.img"
    path.write_bytes(sample.body)
    text = refused_upload(rig, path)
    assert f"image {path} is {sample.name}, not a raw disk" in text
    assert sample.command in text
    assert "nothing was started" in text
    assert "--format raw" in text


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("name", ["qcow2", "fixed VHD"])
def test_upload_refuses_what_is_compressed_whatever_is_in_it(rig: Rig, tmp_path: Path, codec: str, name: str) -> None:
    suffix, compress = CODECS[codec]
    path = tmp_path / f"disk{suffix}"
    path.write_bytes(compress(ALL[name].body))
    assert f"is compressed with {codec}" in refused_upload(rig, path)


@pytest.mark.parametrize("name", ALL)
def test_fanout_refuses_an_object(rig: Rig, name: str) -> None:
    sample = ALL[name]
    text = refused_fanout(rig, "disk.img", sample.body)
    assert f"image s3://{IMAGES}/disk.img is {sample.name}, not a raw disk" in text
    assert sample.command in text
    assert "nothing was started" in text
    assert 'image_format: "raw" (--format raw)' in text
    if name in PACKED:
        assert f'image_codec: "{sample.name.removeprefix("compressed with ")}"' in text


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("name", ALL)
def test_fanout_refuses_what_a_compressed_object_unpacks_to(rig: Rig, codec: str, name: str) -> None:
    sample = ALL[name]
    suffix, compress = CODECS[codec]
    text = refused_fanout(rig, f"disk.img{suffix}", compress(sample.body))
    assert f"image s3://{IMAGES}/disk.img{suffix} unpacks to {_unpacked(sample.name)}, not to a raw disk" in text
    assert sample.command in text
    assert "nothing was started" in text
    assert 'image_format: "raw" (--format raw)' in text


def _unpacked(name: str) -> str:
    return f"something {name}" if name.startswith("compressed") else name


# -- insisting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qcow2", "fixed VHD", "tar", "gzip"])
def test_who_says_that_it_is_a_raw_disk_is_believed_at_every_door(
    shared: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    rig, body = shared, ALL[name].body
    wanted = hashes({0: body.ljust(BLOCK_SIZE, b"\0")})
    path = tmp_path / "disk.img"
    path.write_bytes(body)
    assert cli.main(["upload", str(path), "--region", HOME, "--format", "raw", "--json"]) == 0
    made = [json.loads(capsys.readouterr().out)["snapshot_id"]]
    for key, stored, more in (
        ("disk.img", body, {"image_format": "raw"}),
        ("disk.img", body, {"image_codec": "raw"}),
        ("disk.img.xz", lzma.compress(body), {"image_format": "raw"}),
    ):
        rig.aws.s3(HOME).put_object(Bucket=IMAGES, Key=key, Body=stored)
        request = {"image_uri": f"s3://{IMAGES}/{key}", "targets": [{"region": HOME}], **more}
        made.append(rig.run("fanout", request)["targets"][0]["snapshot_id"])
    assert [rig.held(snapshot_id) for snapshot_id in made] == [wanted] * 4


def test_a_dry_run_refuses_what_a_compressed_object_unpacks_to(rig: Rig) -> None:
    text = refused_fanout(rig, "disk.qcow2.zst", zstandard.compress(ALL["qcow2"].body), options={"dry_run": True})
    assert "unpacks to a qcow2 image" in text
    assert "-O raw disk.qcow2 disk.qcow2.raw`" in text


def test_a_format_belongs_to_an_image(rig: Rig) -> None:
    with pytest.raises(InvalidRequest, match="image_format belongs to image_uri"):
        rig.plan(
            {"snapshot_id": "snap-00000000000000001", "image_format": "raw", "targets": [{"region": HOME}]},
            operation="fanout",
        )

"""A whole archive, and the one that it is built upon, damaged in every way: noticed, with what is lost with it.

The golden archives, whose objects have some hundred bytes each. Every byte of each object is changed, and each one is
cut off at every length, taken away, and swapped with every other: whoever reads it has to refuse it. For a sample of
these, by a seed that is printed, all is verified in process; for every one of them where ``BLOCKFERRY_EVERY_BYTE`` is
set, which takes minutes.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import pytest
from blockferry.aws.archives import Archive, Chain, bucket_of, open_chain
from blockferry.aws.sessions import Identity
from blockferry.core.blocks import BLOCKS_PER_GIB, BlockRange
from blockferry.core.checksums import digest_of
from blockferry.core.errors import ArchiveDamaged, InvalidRequest
from blockferry.formats.archive.layout import MANIFEST, segment_name
from blockferry.formats.archive.manifest import Member
from blockferry.jobs.call import JobCall
from blockferry.jobs.folder import JobFolder
from blockferry.jobs.record import Place
from blockferry.sources.archive import ArchiveSource
from blockferry.verification.check import verify_range
from blockferry.verification.record import Finding, Verification, found, found_names, save_plan
from fakes import ManualClock
from job_records import job_call
from memory_s3 import MemoryS3
from rig import HOME
from tools.environment import repository_root
from tools.golden_archives import BUCKET, GOLDEN, INCREMENT, data_of

EVERY = "BLOCKFERRY_EVERY_BYTE"

SEED = 20_261_127

SAMPLE = 60
"""Damages for which all is verified; each takes some hundredths of a second."""

URI = INCREMENT.address.manifest_uri

WHOLE = BlockRange(0, INCREMENT.size_gib * BLOCKS_PER_GIB)

Objects = Mapping[str, bytes]


@cache
def golden() -> Objects:
    """Every object, by its key."""
    folder = repository_root() / GOLDEN / BUCKET
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def call_on(objects: Objects) -> JobCall:
    """A call that finds these objects, and a work bucket with nothing in it."""
    archives, work = MemoryS3(), MemoryS3()
    archives.objects = dict(objects)
    aws = SimpleNamespace(image_s3=lambda _identity: archives)
    return job_call(aws, JobFolder("work", cast(Any, work), "verify", "check"), clock=ManualClock())


@cache
def intact() -> Chain:
    return open_chain(call_on(golden()), Identity(HOME), URI)


@dataclass(frozen=True)
class Object:
    """An object of an archive: what reads it, and the blocks ``first <= index < stop`` that are lost with it."""

    code: str
    first: int
    stop: int
    read: Callable[[JobCall], object]


def _of(archive: Archive) -> Iterator[tuple[str, Object]]:
    key = archive.address.key

    def here(call: JobCall) -> Archive:
        return Archive(archive.address, archive.manifest, bucket_of(call, Identity(HOME), BUCKET))

    yield key(MANIFEST), Object("manifest", WHOLE.first, WHOLE.stop, lambda call: open_chain(call, Identity(HOME), URI))
    for facts in archive.manifest.indexes:
        yield (
            key(facts.name),
            Object("index", facts.first, facts.stop, lambda call, facts=facts: here(call).index(facts)),
        )
        index = archive.index(facts)
        for number, segment in enumerate(index.segments):
            entries = index.entries_of(number)
            yield (
                key(segment_name(segment.first)),
                Object(
                    "segment",
                    entries[0].block,
                    entries[-1].block + 1,
                    lambda call, index=index, number=number: here(call).segment(index, number),
                ),
            )


@cache
def known() -> Mapping[str, Object]:
    """Every object of both archives, by its key."""
    return {key: each for archive in intact().members for key, each in _of(archive)}


def says_the_same(key: str, body: bytes) -> bool:
    """Whether a manifest was written in another way only: its SHA-256 is over what it says."""
    if not key.endswith(MANIFEST):
        return False
    try:
        return bool(json.loads(body) == json.loads(golden()[key]))
    except ValueError:
        return False


def refused(key: str, objects: Objects) -> bool:
    """Whether reading the object raises what names it."""
    try:
        known()[key].read(call_on(objects))
    except ArchiveDamaged as error:
        # Where two manifests change places, the one that is read first.
        return f"s3://{BUCKET}/{key}" in str(error) or (key.endswith(MANIFEST) and URI in str(error))
    return False


def changed(key: str, place: int, drawn: random.Random) -> Objects:
    body = bytearray(golden()[key])
    body[place] ^= drawn.randrange(1, 256)
    return {**golden(), key: bytes(body)}


def cut_off(key: str, length: int) -> Objects:
    return {**golden(), key: golden()[key][:length]}


def taken_away(key: str) -> Objects:
    return {name: body for name, body in golden().items() if name != key}


def swapped(key: str, other: str) -> Objects:
    return {**golden(), key: golden()[other], other: golden()[key]}


def damages(drawn: random.Random) -> Iterator[tuple[str, str, Objects]]:
    """What was done, to which object, and the objects then."""
    for key, body in golden().items():
        yield "taken away", key, taken_away(key)
        for place in range(len(body)):
            yield f"byte {place} changed", key, changed(key, place, drawn)
            yield f"cut off at {place}", key, cut_off(key, place)
        for other in golden():
            if golden()[other] != body:
                yield f"swapped with {other}", key, swapped(key, other)


@pytest.fixture
def drawn() -> random.Random:
    print(f"seed {SEED}")
    return random.Random(SEED)


def test_every_object_is_known_and_intact() -> None:
    assert known().keys() == golden().keys()
    for key in golden():
        assert not refused(key, golden())
    assert verified(golden()) == []


@pytest.mark.parametrize("key", golden())
def test_every_byte_that_is_changed_is_noticed_by_whoever_reads_the_object(key: str, drawn: random.Random) -> None:
    unnoticed = []
    for place in range(len(golden()[key])):
        objects = changed(key, place, drawn)
        if not refused(key, objects) and not says_the_same(key, objects[key]):
            unnoticed.append(place)
    assert unnoticed == []


@pytest.mark.parametrize("key", golden())
def test_every_end_that_is_cut_off_is_noticed_by_whoever_reads_the_object(key: str) -> None:
    lengths = range(len(golden()[key]))
    kept = [
        length
        for length in lengths
        if not refused(key, cut_off(key, length)) and not says_the_same(key, golden()[key][:length])
    ]
    assert kept == []


def test_every_object_that_is_gone_or_another_is_noticed_by_whoever_reads_it() -> None:
    for key in golden():
        for other in golden():
            if golden()[other] != golden()[key]:
                assert refused(key, swapped(key, other)), f"{key} is {other}"
    # That there is no such archive is told of the one that was asked for: tests/unit/test_verify.py.
    for key in golden().keys() - {INCREMENT.address.key(MANIFEST)}:
        assert refused(key, taken_away(key)), key


def verified(objects: Objects) -> list[Finding]:
    """What a verification finds that was planned while all was intact."""
    call = call_on(objects)
    plan = Verification(
        job_id="check",
        execution_arn="arn:aws:states:us-east-1:111122223333:execution:blockferry-verify:check",
        started_at="2026-01-01T00:00:00.000Z",
        fingerprint="",
        place=Place(region=HOME, role_arn=None, external_id=None),
        chain=tuple(
            Member(manifest_uri=each.address.manifest_uri, sha256=each.manifest.sha256) for each in intact().members
        ),
        total_blocks=WHOLE.stop,
        blocks_per_range=WHOLE.stop,
    )
    assert verify_range(call, save_plan(call.folder, plan), within=WHOLE, progress=None)["done"]
    (name,) = found_names(call.folder)
    return list(found(call.folder, name).findings)


def test_a_verification_names_the_object_and_what_is_lost_with_it(drawn: random.Random) -> None:
    everything = list(damages(drawn))
    some = everything if os.environ.get(EVERY) else drawn.sample(everything, SAMPLE)
    # Of each object at least one.
    some += [(what, key, objects) for what, key, objects in everything if what in ("taken away", "byte 9 changed")]
    for what, key, objects in some:
        if says_the_same(key, objects.get(key, b"")):
            continue
        where, wanted = f"{key} {what}", known()[key]
        findings = verified(objects)
        touched = {(found.object, found.code, found.first, found.stop) for found in findings}
        of_manifest = wanted.code == "manifest" or (what.startswith("swapped") and MANIFEST in what)
        if of_manifest:
            # Without a manifest nothing else can be said, and the one that was asked for is named.
            assert touched == {(URI, "manifest", WHOLE.first, WHOLE.stop)}, where
            assert MANIFEST in findings[0].message, where
        else:
            assert (f"s3://{BUCKET}/{key}", wanted.code, wanted.first, wanted.stop) in touched, where
            assert len(touched) == (2 if what.startswith("swapped") else 1), where


def test_no_damage_gives_other_blocks_to_whoever_restores(drawn: random.Random) -> None:
    """Every block is either what it was or not read at all."""
    wanted = {block: digest_of(data_of(what)) for block, what in INCREMENT.held.items()}
    everything = list(damages(drawn))
    for what, key, objects in everything if os.environ.get(EVERY) else drawn.sample(everything, SAMPLE):
        unread = 0
        try:
            source = ArchiveSource(open_chain(call_on(objects), Identity(HOME), URI))
            refs = list(source.blocks(WHOLE))
        except (ArchiveDamaged, InvalidRequest):
            continue
        assert [ref.index for ref in refs] == list(wanted), f"{key} {what}"
        for ref in refs:
            try:
                assert source.read(ref).digest == wanted[ref.index], f"{key} {what}"
            except ArchiveDamaged:
                unread += 1
        # What of a segment no frame of a live block lies in is read by a verification only.
        assert unread or "/segments/" in key or says_the_same(key, objects[key]), f"{key} {what}"

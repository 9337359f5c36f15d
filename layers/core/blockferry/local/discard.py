"""Discard: delete what the archive of an image has left whose command died, and let nobody finish it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from blockferry.aws.archives import bucket_of
from blockferry.aws.call import Call
from blockferry.aws.sessions import Aws, Identity
from blockferry.core.errors import ArchiveDamaged, InvalidRequest, RequestRefused
from blockferry.core.retry import Clock
from blockferry.formats.archive import manifest
from blockferry.formats.archive.layout import MANIFEST, UNFINISHED, ArchiveAddress, parse_manifest_uri
from blockferry.targets.archive_claim import LeftArchive, claimed_by, give_up, machine_of


@dataclass(frozen=True)
class Discarded:
    """What was done about an archive: whether it turned out to be ``finished`` (then only the claim beside it was
    taken away), and which command had begun it."""

    archive_uri: str
    finished: bool
    begun_by: str


def parse_archive_uri(uri: str) -> ArchiveAddress:
    """The archive with this address, the folder's or its manifest's. Raises ``InvalidRequest``."""
    try:
        return parse_manifest_uri(uri if uri.endswith(f"/{MANIFEST}") else f"{uri.rstrip('/')}/{MANIFEST}")
    except InvalidRequest as error:
        raise InvalidRequest(
            f"{uri!r} is not the address of an archive (s3://<bucket>/<prefix>/<archive id>/)"
        ) from error


def discard_left(uri: str, *, region: str, aws: Aws, clock: Clock | None = None) -> Discarded:
    """Delete what a command has left that was archiving an image from a machine.

    What the command does after that, should it still run, does not finish the archive. A finished one is kept. Raises
    ``InvalidRequest`` for what is not a command's, or not there, and what ``Bucket`` raises, with a note of how far it
    was: the same again goes on there.
    """
    address, here, call = parse_archive_uri(uri), Identity(region), Call(aws=aws, clock=clock or Clock())
    bucket = bucket_of(call, here, address.bucket)
    try:
        claim, there = bucket.get(address.key(UNFINISHED)), bucket.get(address.key(MANIFEST))
    except RequestRefused as error:
        raise InvalidRequest(f"{uri}: {error}; nothing was deleted") from error
    given_up = there is not None and manifest.is_given_up(there)
    mark = None if claim is None else claimed_by(claim)
    machine = None if claim is None else machine_of(claim)
    if there is not None and not given_up and (claim is None or mark != _writer(there, address)):
        raise InvalidRequest(f"{address.manifest_uri} is there: a finished archive is not deleted by this command")
    if claim is None and not given_up:
        raise InvalidRequest(
            f"below {address.uri()} is no unfinished.json: nobody says whose it is, or nothing is there"
        )
    if claim is not None and mark is None:
        raise InvalidRequest(
            f"{address.uri(UNFINISHED)} does not say whose it is, as far as this version of Blockferry understands it "
            f"({claim.decode(errors='replace').strip():.200}): discard it with the version that wrote it, or by hand"
        )
    if claim is not None and machine is None:
        raise InvalidRequest(
            f"{address.uri()} is a job's ({claim.decode(errors='replace').strip():.200}): resume that, or wait for the "
            "sweep of its deployment, which deletes what nobody resumes"
        )
    mark = mark or ""
    again = f"begin again with: blockferry discard {address.uri()}"
    with _noting(f"nothing of {address.uri()} is deleted yet; {again}"):
        finished = not given_up and not give_up(call, here, address, mark=mark, put={"ContentType": "application/json"})
    became = "is finished and kept" if finished else "is given up, and deleted in part at most"
    with _noting(f"{address.uri()} {became}; {again}"):
        why = LeftArchive(here, address).discard(call, None, mark=mark)
    if why is not None and not finished:
        raise InvalidRequest(f"{address.uri()} is kept: {why}")
    return Discarded(address.uri(), finished, machine or "not known any more")


@contextmanager
def _noting(what: str) -> Iterator[None]:
    """Whatever ends it gets a note of what has become of the archive so far."""
    try:
        yield
    except BaseException as error:
        error.add_note(what)
        raise


def _writer(body: bytes, address: ArchiveAddress) -> str | None:
    """The mark of the execution that has written a manifest."""
    try:
        return manifest.load(body, name=address.manifest_uri).execution
    except ArchiveDamaged:
        return None

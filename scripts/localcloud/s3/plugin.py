"""The local cloud's S3: the base's, with what archives depend on done as S3 does it.

Contents are in files (``contents``), checksums are computed, kept and answered (``checksums``), uploads in parts are
held to S3's limits (``multipart``), keys of KMS have to be usable (``encryption``); locks, tags, storage classes and
listings have modules of their own, conditional writes are ``localcloud.conditional_writes``. Each module puts its own
functions around those that it finds, so their order below is from the inside to the outside.

Config file, ``s3``: ``{"restore_seconds": 2}``, how long RestoreObject takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from localcloud.host import Host
from localcloud.s3 import checksums, contents, encryption, listings, locks, object_tags, storage_classes
from localcloud.s3.base import S3Base
from localcloud.s3.bodies import BodyStore
from localcloud.s3.multipart import Uploads

RESTORE_SECONDS = 2.0


def install(host: Host) -> None:
    """Raises ``ValueError`` for a setting that there is not."""
    restore_seconds = _restore_seconds(host.part_config("s3"))
    base = S3Base(host)
    checks = checksums.install(base)
    tags = object_tags.install(base)
    locked = locks.install(base)
    Uploads(base, checks, locked, tags).plug_in()
    encryption.install(base)
    storage_classes.install(base, restore_seconds=restore_seconds)
    listings.install(base)
    contents.install(base, BodyStore(host.data_dir / "s3"))


def _restore_seconds(part: Mapping[str, Any]) -> float:
    if unknown := sorted(set(part) - {"restore_seconds"}):
        raise ValueError(f"local cloud config: unknown keys in 's3': {', '.join(unknown)}")
    value = part.get("restore_seconds", RESTORE_SECONDS)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ValueError("local cloud config: 'restore_seconds' in 's3' must be a number of seconds")
    return float(value)

"""What snap-to-s3 wrote beside an image of a volume: user metadata of the object, about the snapshot that it was."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from blockferry.core.errors import InvalidRequest
from blockferry.core.quotas import MAX_VOLUME_GIB


class Declared(BaseModel):
    """What the metadata of an image says of it; ``None`` where it says nothing, or nothing that can be.

    ``raw_bytes`` is what the image unpacks to: of a device the tool wrote its very size.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    snapshot_id: str | None = None
    volume_id: str | None = None
    started_at: str | None = None
    description: str | None = None
    volume_gib: int | None = None
    raw_bytes: int | None = None

    def refuse_other_size(self, uri: str, raw_bytes: int) -> None:
        """Raise ``InvalidRequest`` if the image has not unpacked to what is declared."""
        says = None
        if self.raw_bytes not in (None, raw_bytes):
            says = f"{self.raw_bytes} bytes (uncompressed-size)"
        elif self.volume_gib is not None and raw_bytes > self.volume_gib * 2**30:
            says = f"a volume of {self.volume_gib} GiB (snapshot-volumesize)"
        if says is not None:
            raise InvalidRequest(
                f"foreign_uri: image {uri} unpacks to {raw_bytes} bytes, and its metadata says {says}: it is not all "
                "there, or another disk; nothing was started. Who wants it as it is names it as image_uri in a fanout"
            )


def declared_by(metadata: Mapping[str, str]) -> Declared:
    """What user metadata says, by its names without ``x-amz-meta-``, as ``HeadObject`` gives it."""
    volume = _number(metadata.get("snapshot-volumesize"))
    return Declared(
        snapshot_id=metadata.get("snapshot-snapshotid") or None,
        volume_id=metadata.get("snapshot-volumeid") or None,
        started_at=metadata.get("snapshot-starttime") or None,
        description=metadata.get("snapshot-description") or None,
        volume_gib=volume if volume and volume <= MAX_VOLUME_GIB else None,
        raw_bytes=_number(metadata.get("uncompressed-size")),
    )


def _number(text: str | None) -> int | None:
    """A whole number of plain digits, few enough for any size."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 20 else None

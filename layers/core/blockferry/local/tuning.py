"""How much of an upload is under way at a time, and how long it waits for its snapshot."""

from __future__ import annotations

from dataclasses import dataclass

from blockferry.core.blocks import BLOCKS_PER_GIB


@dataclass(frozen=True, kw_only=True)
class UploadTuning:
    """The figures by which an upload goes, none of which decides what its snapshot holds."""

    threads: int = 16
    """Blocks under way at a time, and connections kept open: 8 MiB in memory, and at 30 ms a
    request more than an uplink of 1 Gbit/s takes."""

    stretch: int = 64 * BLOCKS_PER_GIB
    """Blocks moved in one go, so that digests of a huge image are folded into the checksum as they come."""

    first_poll_seconds: float = 0.2
    poll_seconds: float = 2.0
    """Seconds between two questions to EC2 whether the snapshot is completed, at first and in the end."""

    seal_seconds: float = 3_600.0
    """Seconds for which sealing is waited for before the command gives up waiting; all blocks are written by then."""

    unknown_seconds: float = 300.0
    """Seconds for which EC2 may not know a snapshot that was completed, before it is taken for deleted: more than twice
    as long as the direct APIs are said to take to know a new one."""


@dataclass(frozen=True, kw_only=True)
class ArchiveTuning:
    """The figures by which an image goes into an archive, none of which decides what that holds."""

    lanes: int = 4
    """Ranges under way at a time. Each sends one segment at a time, and S3 takes no more than some 80 MB/s of a
    connection; it has two segments in memory (33 MiB each where nothing compresses), and the blocks that wait for them:
    some 90 MiB, whatever the size of the image."""

    threads: int = 4
    """Blocks of a range that are read and compressed at a time: with all lanes more than most machines have cores."""

    notes_in_memory: int = 16 << 20
    """Bytes of notes about ranges, those of four TiB; more of them go into a temporary file."""

"""The quotas and limits of AWS that the package keeps to, and beside each the share of it that this software takes.

A quota holds for one account in one Region unless its docstring says otherwise. Quotas that AWS raises on request are
those of an account that never asked.
"""

from __future__ import annotations

# -- EBS direct APIs ---------------------------------------------------------------------------------------------------

EBS_LISTS_PER_SECOND = 50
"""ListSnapshotBlocks requests a second, and as many ListChangedBlocks; not adjustable (EBS user guide, quotas)."""

LISTS_PER_SECOND = EBS_LISTS_PER_SECOND / 2
"""List requests a second of one step: half of the quota of each operation, since other jobs of the account list too."""

DRY_RUN_LISTS_PER_SECOND = EBS_LISTS_PER_SECOND * 4 / 5
"""List requests a second of a dry run, which asks for one list at a time, and only for as long as it takes."""

BLOCKS_PER_SECOND = 1_000
"""GetSnapshotBlock requests a second from one snapshot, and PutSnapshotBlock requests to one, in every Region; not
adjustable. The quota of an account for all its snapshots is the same in most Regions (EBS user guide, quotas)."""

MIN_PAGE, MAX_PAGE = 100, 10_000
"""MaxResults of the list operations. It is a window of scanned indices, not a number of results (botocore's model)."""

START_TIMEOUT_MINUTES = 4_320
"""The longest Timeout of StartSnapshot: minutes without a block until EBS gives a snapshot up (botocore's model)."""

PENDING_SNAPSHOTS = 100
"""Snapshots that StartSnapshot has begun and that are pending; not adjustable (EBS user guide, quotas, "pending
snapshots per account")."""

MAX_VOLUME_GIB = 65_536
"""GiB of the largest volume that StartSnapshot takes, 64 TiB (EBS user guide, volume sizes)."""

# -- EC2: snapshots, their tags and copies -----------------------------------------------------------------------------

MAX_DESCRIPTION = 255
"""Characters of a snapshot's description (botocore's ebs model)."""

MAX_TAGS = 50
"""Tags that EC2 keeps on a snapshot (EC2 user guide, tag restrictions)."""

MAX_TAG_KEY, MAX_TAG_VALUE = 127, 255
"""Characters of a tag that StartSnapshot takes (botocore's ebs model). CreateTags takes one more of each (EC2 user
guide, tag restrictions)."""

FILTER_VALUES = 200
"""Values that one filter of DescribeSnapshots takes (EC2 API reference, filters)."""

COPY_MIB_PER_SECOND, COPIES_MIB_PER_SECOND = 500.0, 2_000.0
"""MiB a second of one time-based copy, and of all between two Regions (EBS user guide, time-based copies)."""

COPY_STEP_MINUTES, COPY_MAX_MINUTES = 15, 48 * 60
"""Durations that a time-based copy may be asked for: multiples of the first, up to the second (EBS user guide)."""

# -- S3 ----------------------------------------------------------------------------------------------------------------

DELETED_OBJECTS = 1_000
"""Keys of one DeleteObjects request (S3 API reference)."""

MAX_KEY_BYTES = 1_024
"""Bytes of an object's key as UTF-8 (S3 user guide, object keys)."""

MAX_OBJECT_GIB = 5_120
"""GiB of the largest object that is written, 5 TiB: S3 takes that everywhere (S3 user guide, multipart upload limits,
which since December 2025 say 48.8 TiB), and a worker can hold one part of so many."""

MAX_OBJECT_TAGS = 10
"""Tags of an object (S3 user guide, object tags)."""

# -- Step Functions ----------------------------------------------------------------------------------------------------

CAUSE_CHARACTERS = 32_768
"""Characters of the cause of a failed task (Step Functions API reference, TaskFailedEventDetails)."""

ERROR_CHARACTERS = CAUSE_CHARACTERS - 12_768
"""Characters of an error's text as JSON, in which a hundred targets may each have something to tell. The rest of the
cause, which is JSON as well, is left to the traceback."""

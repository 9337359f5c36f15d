"""Which targets take up places of the pending snapshots that an account may have."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
from blockferry.core.errors import InvalidRequest
from blockferry.core.quotas import PENDING_SNAPSHOTS
from blockferry.targets.full import FullSnapshot
from blockferry.transfer.room import refuse_without_room
from blockferry.transfer.sentences import source_line
from fakes import ManualClock
from job_records import RECOVERY, folder_of, job, job_call, source, target
from memory_ec2 import MemoryEc2, described
from memory_s3 import MemoryS3


class Elsewhere(FullSnapshot):
    """A kind that is no snapshot while it is made."""

    takes_up_a_place: ClassVar[bool] = False


def room_for(*targets: Any) -> None:
    full = [described(f"snap-{n}", state="pending", tags={}, VolumeId="vol-ffffffff") for n in range(PENDING_SNAPSHOTS)]
    of = job(source(), target())
    region = MemoryEc2(*full)
    call = job_call(SimpleNamespace(ec2=lambda _: region), folder_of(of, MemoryS3()), clock=ManualClock())
    refuse_without_room(cast(Any, SimpleNamespace(targets=targets, execution=of.execution)), call)


def test_only_kinds_that_are_pending_snapshots_while_they_are_made_need_a_place() -> None:
    one = target(snapshot_id="")
    with pytest.raises(InvalidRequest, match=rf"targets\[0\]: this account has 100 pending snapshots in {RECOVERY}"):
        room_for(one)
    room_for(Elsewhere(**one.model_dump()))


def test_a_source_that_is_neither_a_snapshot_nor_an_image_is_told_by_its_name() -> None:
    assert source_line({"source": {"name": "archive a/1", "region": RECOVERY}}) == f"archive a/1 in {RECOVERY}"

"""The tag language, slots, and the decisions about backups, over plain values."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from blockferry.lifecycle.backing_up import Defaults, Instance, Volume, selection
from blockferry.lifecycle.expiring import Backup, Rules, expiry
from blockferry.lifecycle.items import Action
from blockferry.lifecycle.replicating import Copy, Destination, Found, replication, tags_of_copy
from blockferry.lifecycle.retention import A_WEEK, NotARetention, Retention, kept_by_tiers
from blockferry.lifecycle.schedule import WEEKDAYS, Schedule
from blockferry.lifecycle.tags import MARK_TAG, TagNames, Told
from hypothesis import given
from hypothesis import strategies as st

NAMES = TagNames()
TODAY = date(2026, 11, 27)
NOW = datetime(2026, 11, 27, 5, tzinfo=UTC)


def told(**tags: str) -> Told:
    return Told("vol-1", tags, NAMES)


# -- the tag language --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("14", Retention(14)),
        (" 14d ", Retention(14)),
        ("7d 4w 12m 3y", Retention(7, 4, 12, 3)),
        ("12m", Retention(9, months=12)),
        ("36500", Retention(36_500)),
    ],
)
def test_a_retention_is_days_or_tiers(value: str, meant: Retention) -> None:
    assert Retention.read(value, default_days=9) == meant
    assert Retention.read(str(meant), default_days=1) == meant


@pytest.mark.parametrize("value", ["", " ", "abc", "-1", "0", "100000", "7d7w", "7d 8d", "1.5", "7 D", "x" * 256, "٣"])
def test_a_retention_that_means_nothing_is_told_and_the_default_holds(value: str) -> None:
    with pytest.raises(NotARetention):
        Retention.read(value, default_days=7)
    reader = told(Retention=value)
    assert reader.retention(Retention(5)) == Retention(5)
    (problem,) = reader.problems
    assert (problem.resource, problem.tag, problem.value) == ("vol-1", "Retention", value)
    assert "its backups are kept for 5d" in str(problem)


@pytest.mark.parametrize(
    ("value", "meant"), [("Yes", True), ("yes ", True), ("NO", False), ("true", None), ("", None), ("1", None)]
)
def test_backup_is_yes_or_no_in_any_case(value: str, meant: bool | None) -> None:
    reader = told(Backup=value)
    assert reader.backup() is meant
    assert bool(reader.problems) == (meant is None)


def test_destinations_are_named_once_and_those_that_there_are_not_are_told() -> None:
    reader = told(Copy_Dest="eu-west-1, dr;eu-west-1  moon")
    assert reader.wanted() == ("eu-west-1", "dr", "moon")
    assert reader.destinations({"eu-west-1", "dr"}) == ("eu-west-1", "dr")
    assert "moon" in str(reader.problems[0])


@pytest.mark.parametrize("value", ["2026-1-5", "20261105", "05.11.2026", "2026-13-01", "2026-02-30", "", "2026-11-05 "])
def test_a_day_has_one_form(value: str) -> None:
    reader = told(DeleteOn=value)
    assert reader.delete_on() is None
    assert len(reader.problems) == 1
    assert told(DeleteOn="2026-11-05").delete_on() == date(2026, 11, 5)


# -- slots -------------------------------------------------------------------------------


@given(
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Pacific/Auckland", "Australia/Lord_Howe"]),
    st.lists(st.integers(0, 24 * 60 - 1), min_size=1, max_size=3, unique=True),
    st.lists(st.sampled_from(WEEKDAYS), min_size=1, max_size=7, unique=True),
    st.integers(0, 366 * 24 * 3600).map(lambda seconds: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)),
)
def test_a_slot_is_the_last_minute_of_the_schedule_that_a_clock_on_the_wall_shows(
    zone: str, minutes: list[int], weekdays: list[str], now: datetime
) -> None:
    times = tuple(f"{minute // 60:02}:{minute % 60:02}" for minute in minutes)
    schedule = Schedule(times, tuple(weekdays), zone)
    slot = schedule.slot(now)
    assert slot <= now < schedule.next_slot(now)

    def strikes(instant: datetime) -> bool:
        wall = instant.astimezone(ZoneInfo(zone))
        return wall.fold == 0 and f"{wall:%H:%M}" in times and WEEKDAYS[wall.weekday()] in weekdays

    # Minute by minute back from now, and ahead.
    minute = now.replace(second=0, microsecond=0)
    while not strikes(minute):
        minute -= timedelta(minutes=1)
    assert slot == minute
    minute = now.replace(second=0, microsecond=0) + timedelta(minutes=1)
    while not strikes(minute):
        minute += timedelta(minutes=1)
    assert schedule.next_slot(now) == minute


@pytest.mark.parametrize(
    ("times", "weekdays", "zone"),
    [((), WEEKDAYS, "UTC"), (("24:00",), WEEKDAYS, "UTC"), (("1:00",), WEEKDAYS, "UTC"), (("01:00",), (), "UTC")],
)
def test_a_schedule_without_an_instant_is_refused(times: tuple[str, ...], weekdays: tuple[str, ...], zone: str) -> None:
    with pytest.raises(ValueError, match=r"must be some of"):
        Schedule(times, weekdays, zone)


def test_time_zones_are_known_on_a_machine_that_has_no_files_of_them() -> None:
    # Runtimes of Lambda need not have any.
    program = (
        "from blockferry.lifecycle.schedule import Schedule; print(Schedule(('01:00',), zone='Europe/Berlin').zone)"
    )
    bare = {**os.environ, "PYTHONTZPATH": ""}
    done = subprocess.run([sys.executable, "-c", program], env=bare, capture_output=True, text=True, check=False)
    assert done.stdout == "Europe/Berlin\n", done.stderr


# -- tiers -------------------------------------------------------------------------------


def test_the_last_backup_of_each_newest_period_is_kept() -> None:
    days = [date(2026, 1, 1) + timedelta(days=number) for number in range(365)]
    backups = {str(day): (day, Retention(7, weeks=3, months=4, years=1)) for day in days}
    kept = kept_by_tiers(backups, newest_first=[str(day) for day in reversed(days)])
    assert kept == {
        "2026-12-31": "week 2026-W53",
        "2026-12-27": "week 2026-W52",
        "2026-12-20": "week 2026-W51",
        "2026-11-30": "month 2026-11",
        "2026-10-31": "month 2026-10",
        "2026-09-30": "month 2026-09",
    }


@given(st.lists(st.dates(date(2024, 1, 1), date(2026, 12, 31)), unique=True), st.integers(0, 5), st.integers(0, 5))
def test_what_tiers_keep_stays_kept_when_the_rest_is_gone(days: list[date], weeks: int, months: int) -> None:
    retention = Retention(1, weeks=weeks, months=months)

    def kept(of: list[date]) -> set[date]:
        return set(kept_by_tiers({day: (day, retention) for day in of}, newest_first=sorted(of, reverse=True)))

    once = kept(days)
    assert kept(sorted(once)) == once
    assert len(once) <= weeks + months


# -- expire ------------------------------------------------------------------------------


def backup(number: int, tags: Mapping[str, str], *, volume: str = "vol-1", **more: object) -> Backup:
    made = TODAY - timedelta(days=60) + timedelta(days=number)
    facts: dict[str, object] = {
        "snapshot_id": f"snap-{number:02}",
        "volume": volume,
        "state": "completed",
        "started": datetime(made.year, made.month, made.day, 1, tzinfo=UTC),
        "made": made,
        "tags": {"Type": "Automated", **tags},
    }
    return Backup(**(facts | more))  # type: ignore[arg-type]


TAGS = st.fixed_dictionaries(
    {},
    optional={
        "DeleteOn": st.sampled_from(["2026-11-27", "2026-11-28", "2026-01-01", "soon", ""]),
        "KeepForever": st.sampled_from(["", "no"]),
        "keepforever": st.just("x"),
        "Type": st.sampled_from(["Automated", "automated", ""]),
        "Copy_Dest": st.sampled_from(["", "eu-west-1"]),
        "Retention": st.sampled_from(["7", "1d 2w", "junk"]),
        "blockferry:expires": st.sampled_from(["this-run", "another-run"]),
        "blockferry:copy:eu-west-1": st.just("snap-9"),
        "blockferry:drill": st.just(""),
    },
)
BACKUPS = st.lists(
    st.builds(
        lambda number, tags, volume, state, images, lock: backup(
            number, tags, volume=volume, state=state, images=images, lock=lock
        ),
        st.integers(0, 59),
        TAGS,
        st.sampled_from(["vol-1", "vol-2"]),
        st.sampled_from(["completed", "completed", "pending", "error"]),
        st.sampled_from([(), (), ("ami-1",)]),
        st.sampled_from([None, None, "compliance"]),
    ),
    max_size=12,
    unique_by=lambda each: each.snapshot_id,
)


@given(BACKUPS, st.integers(0, 3), st.booleans(), st.randoms(use_true_random=False))
def test_nothing_protected_goes_everything_due_does_and_order_does_not_matter(
    backups: list[Backup], newest: int, at_once: bool, order: random.Random
) -> None:
    rules = Rules(keep_newest=newest, at_once=at_once)
    items, _ = expiry(backups, today=TODAY, run="this-run", rules=rules)
    assert [item.resource for item in items] == [each.snapshot_id for each in backups]
    shuffled = list(backups)
    order.shuffle(shuffled)
    shuffled = [Backup(**{**vars(each), "tags": dict(reversed(each.tags.items()))}) for each in shuffled]
    again, _ = expiry(shuffled, today=TODAY, run="this-run", rules=rules)
    assert {item.resource: item for item in again} == {item.resource: item for item in items}

    deleted = {item.resource for item in items if item.action is Action.DELETE}
    due = set()
    for each in backups:
        tags = each.tags
        good = [
            other
            for other in backups
            if other.volume == each.volume
            and other.state == "completed"
            and other.tags["Type"] == "Automated"
            and "blockferry:drill" not in other.tags
        ]
        good.sort(key=lambda other: (other.started, other.snapshot_id), reverse=True)
        held = (
            tags["Type"] != "Automated"
            or "KeepForever" in tags
            or "keepforever" in tags
            or tags.get("DeleteOn") not in ("2026-11-27", "2026-01-01")
            or each.state == "pending"
            or bool(each.images)
            or each.lock is not None
            or (
                each.state == "completed"
                and tags.get("Copy_Dest") == "eu-west-1"
                and "blockferry:copy:eu-west-1" not in tags
            )
            or each in good[:newest]
            or (each in good and tags.get("Retention") == "1d 2w" and _last_of_week(each, good))
        )
        if not held and (at_once or tags.get(MARK_TAG) == "another-run"):
            due.add(each.snapshot_id)
    assert deleted == due


def _last_of_week(each: Backup, good: list[Backup]) -> bool:
    """Whether it is the last of one of the two newest weeks that have any."""
    weeks = sorted({other.made.isocalendar()[:2] for other in good}, reverse=True)[:2]
    week = each.made.isocalendar()[:2]
    same = [other for other in good if other.made.isocalendar()[:2] == week]
    return week in weeks and each == max(same, key=lambda other: (other.started, other.snapshot_id))


def test_what_needs_it_or_uses_it_keeps_it() -> None:
    due = {"DeleteOn": "2026-11-01", MARK_TAG: "another-run"}
    reasons = {
        "shared": ("123456789012",),
        "jobs": ("copy nightly",),
        "needed": ("the next archive builds upon it",),
    }
    for name, value in reasons.items():
        items, _ = expiry([backup(1, due, **{name: value}), backup(9, {})], today=TODAY, run="r", rules=Rules())
        assert items[0].action is Action.MARK
        assert value[0] in items[0].reason


# -- backup ------------------------------------------------------------------------------

DEFAULTS = Defaults(region="us-east-1", slot=datetime(2026, 11, 27, 1, tzinfo=UTC), made=TODAY)


def test_a_volume_of_two_instances_is_backed_up_with_the_first_of_them() -> None:
    asks = {"Backup": "Yes"}
    shared = Volume(volume_id="vol-9", state="in-use", tags={})
    own = Volume(volume_id="vol-1", state="in-use", tags={})
    instances = [
        Instance(instance_id="i-2", state="running", tags=asks, devices={"/dev/sda1": "vol-9"}),
        Instance(instance_id="i-1", state="running", tags=asks, devices={"/dev/sda1": "vol-1", "/dev/sdf": "vol-9"}),
    ]
    chosen = selection(instances, [shared, own], {}, DEFAULTS, destinations=())
    assert [(each.resource, [volume.volume_id for volume in each.volumes]) for each in chosen.sets] == [
        ("i-1", ["vol-1", "vol-9"])
    ]


@pytest.mark.parametrize("state", ["terminated", "shutting-down"])
def test_an_instance_on_its_way_out_is_left_alone(state: str) -> None:
    instance = Instance(instance_id="i-1", state=state, tags={"Backup": "Yes"}, devices={"/dev/sda1": "vol-1"})
    chosen = selection([instance], [], {}, DEFAULTS, destinations=())
    assert (chosen.sets, [item.reason for item in chosen.items]) == ((), [f"it is {state}"])


def test_tags_that_say_how_long_volumes_are_kept_do_not_stand_on_their_backups() -> None:
    tags = {"Backup": "Yes", "KeepForever": "x", "DeleteOn": "2020-01-01", "Type": "db", "Owner": "me", "aws:x": "y"}
    volume = Volume(volume_id="vol-1", state="available", tags=tags)
    (made,) = selection([], [volume], {}, DEFAULTS, destinations=()).sets
    assert made.volumes[0].tags == {
        "Type": "Automated",
        "Retention": "7d",
        "DeleteOn": "2026-12-04",
        "Source_VolumeId": "vol-1",
        "Source_Region": "us-east-1",
        "blockferry:slot": "2026-11-27T01:00:00Z",
        "Owner": "me",
    }
    assert not made.copies_tags


# -- replicate ---------------------------------------------------------------------------

EU = {"eu-west-1": Destination(name="eu-west-1", region="eu-west-1")}


def steps(
    backups: list[Backup], found: Mapping[str, Found] | None = None, **more: object
) -> list[tuple[str, str, str]]:
    made, _ = replication(
        backups,
        {"eu-west-1": Found()} if found is None else found,
        EU,
        names=NAMES,
        retention=A_WEEK,
        own_region="us-east-1",
        **more,  # type: ignore[arg-type]
    )
    return [(step.item.resource, step.item.action.value, step.item.outcome.value) for step in made]


WANTED = {"Copy_Dest": "eu-west-1", "DeleteOn": "2026-12-01"}


def copy_of(original: str, *, state: str = "completed", **tags: str) -> Found:
    return Found((Copy(snapshot_id="snap-c", original=original, state=state, tags=tags),))


def test_only_what_is_completed_and_no_copy_itself_is_copied() -> None:
    a_copy = {**WANTED, "Source_SnapshotId": "snap-0"}
    made = steps([backup(1, WANTED), backup(2, WANTED, state="pending"), backup(3, a_copy), backup(4, {})])
    assert made == [("snap-01", "copy", "planned"), ("snap-02", "none", "skipped")]


def test_a_copy_is_made_once_and_noted_and_never_again_when_it_is_gone() -> None:
    assert steps([backup(1, WANTED)], {"eu-west-1": copy_of("snap-01", state="pending")}) == [
        ("snap-01", "none", "skipped")
    ]
    assert steps([backup(1, WANTED)], {"eu-west-1": copy_of("snap-01")}) == [("snap-01", "mark", "planned")]
    noted = backup(1, {**WANTED, "blockferry:copy:eu-west-1": "snap-c"})
    assert steps([noted], {"eu-west-1": copy_of("snap-01")}) == [("snap-01", "none", "skipped")]
    assert steps([noted]) == [("snap-01", "none", "skipped")]
    assert steps([backup(1, WANTED)], {"eu-west-1": copy_of("snap-01", state="error")}) == [
        ("snap-01", "copy", "planned")
    ]


def test_protection_that_comes_later_reaches_the_copies() -> None:
    kept = backup(1, {**WANTED, "KeepForever": "", "blockferry:copy:eu-west-1": "snap-c"})
    assert steps([kept], {"eu-west-1": copy_of("snap-01")}) == [("snap-c", "mark", "planned")]
    assert steps([kept], {"eu-west-1": copy_of("snap-01", KeepForever="")}) == [("snap-01", "none", "skipped")]


def test_twenty_are_copied_at_a_time_the_oldest_first() -> None:
    made = steps([backup(number, WANTED) for number in range(29, -1, -1)], under_way={"eu-west-1": 5})
    assert made[:15] == [(f"snap-{number:02}", "copy", "planned") for number in range(15)]
    assert {outcome for _, _, outcome in made[15:]} == {"skipped"}


def test_a_destination_that_is_not_reached_waits() -> None:
    assert steps([backup(1, WANTED)], {"eu-west-1": Found(unreached="down")}) == [("snap-01", "none", "skipped")]


@given(st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=20), max_size=60), TAGS)
def test_a_copy_has_its_own_tags_whatever_its_original_has(theirs: dict[str, str], ours: dict[str, str]) -> None:
    original = backup(1, {**theirs, **ours, "Type": "Automated"})
    reader = Told(original.snapshot_id, original.tags, NAMES)
    there = Destination(name="dr", region="eu-west-1", retention=Retention(30))
    tags = tags_of_copy(original, reader, there, retention=A_WEEK, own_region="us-east-1")
    assert len(tags) <= 50
    assert tags["Source_SnapshotId"] == "snap-01"
    assert (tags["Type"], tags["DeleteOn"]) == ("Automated", str(original.made + timedelta(days=30)))
    assert ("KeepForever" in tags) == ("KeepForever" in original.tags)
    assert not {"Copy_Dest", MARK_TAG, "blockferry:copy:eu-west-1"} & tags.keys()

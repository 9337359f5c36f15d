"""What passes by itself, against a server that behaves so: a wrong clock, a slow body, tags that spread."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from blockferry.aws.ebs.client import EbsDirect, NewSnapshot
from blockferry.aws.ebs.refusals import MOST_SIGNED_AGAIN, TAGS_SPREAD_SECONDS
from blockferry.aws.ebs.signing import Credentials
from blockferry.aws.ebs.transport import Answer, SignedHttp
from blockferry.core.checksums import digest_of
from blockferry.core.errors import RequestRefused
from blockferry.core.retry import Clock
from blockferry.targets.sink import SnapshotSink
from fakes import content
from localcloud.ebs.clock import ManualClock
from localcloud.ebs.decisions import Caller, Decision
from localcloud.ebs.testing import HOME_ACCOUNT, REGION, RunningServer, running_server

TAG = "blockferry:job-id"
DENIED = "not authorized to perform: ebs:PutSnapshotBlock because no identity-based policy allows it"
DATA = content(3)


class OnlyTagged:
    """Policies that let blocks be written to snapshots with a job's tag only, as Terraform's do."""

    def __init__(self) -> None:
        self.asked = 0
        self.allow = True

    def decide(
        self, caller: Caller, action: str, resource: str, *, region: str, context: tuple[tuple[str, str], ...] = ()
    ) -> Decision:
        self.asked += 1
        tagged = any(name == f"aws:ResourceTag/{TAG}" for name, _ in context)
        writes = action in ("ebs:PutSnapshotBlock", "ebs:CompleteSnapshot")
        return Decision(not writes or (tagged and self.allow), DENIED)

    def forget(self) -> None:
        return


class Bench:
    """A server and clients whose waiting moves its clock."""

    def __init__(self, server: RunningServer, clock: ManualClock, policies: OnlyTagged) -> None:
        self.server, self.clock, self.policies = server, clock, policies

    def client(self, *, clock_ahead: timedelta = timedelta()) -> EbsDirect:
        http = SignedHttp(
            endpoint_url=self.server.url,
            region=REGION,
            credentials=lambda: Credentials(HOME_ACCOUNT, self.server.keys.secret),
            now=lambda: datetime.now(UTC) + clock_ahead,
        )
        waits = Clock(monotonic=self.clock.now, sleep=self.clock.advance, uniform=lambda _low, high: high)
        return EbsDirect(http, region=REGION, clock=waits)

    def calls(self) -> Mapping[str, int]:
        return dict(self.server.service.stats.as_dict()["calls"])


@contextmanager
def bench(**settings: Any) -> Iterator[Bench]:
    clock, policies = ManualClock(), OnlyTagged()
    with running_server(
        {"quotas_enabled": False, "seal_seconds": 0, **settings}, clock=clock, decisions=policies
    ) as server:
        yield Bench(server, clock, policies)


def start(ebs: EbsDirect) -> str:
    return ebs.start_snapshot(NewSnapshot(1, "token", "d", {TAG: "job"})).snapshot_id


def put(ebs: EbsDirect, snapshot_id: str, index: int = 0) -> None:
    ebs.put_block(snapshot_id, index, DATA, digest_of(DATA))


# -- the clock -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "ahead", [timedelta(hours=-30), timedelta(minutes=-6), timedelta(minutes=6), timedelta(days=2)]
)
def test_a_wrong_clock_is_told_by_the_first_answer_and_costs_one_request(ahead: timedelta) -> None:
    with bench() as at:
        ebs = at.client(clock_ahead=ahead)
        snapshot_id = start(ebs)
        for index in range(3):
            put(ebs, snapshot_id, index)
        ebs.complete_snapshot(snapshot_id, changed_blocks=3, linear_checksum=None)
        assert ebs.counts.retries == {"StartSnapshot InvalidSignatureException": 1}
        assert len(at.server.service.registry.snapshots) == 1


def test_the_services_clock_may_change_meanwhile() -> None:
    with bench() as at:
        ebs = at.client()
        snapshot_id = start(ebs)
        for offset in (3600, -7200, 0):
            at.server.service.configure({"signature_clock_offset_seconds": offset})
            put(ebs, snapshot_id)
        assert ebs.counts.retries == {"PutSnapshotBlock InvalidSignatureException": 3}


class Refusing:
    """A transport whose every answer is the same."""

    def __init__(self, answer: Answer) -> None:
        self.answer, self.sent = answer, 0

    def send(self, *_: Any, **__: Any) -> Answer:
        self.sent += 1
        return self.answer


def refusal(code: str, message: str, **headers: str) -> Answer:
    return Answer(403, {"x-amzn-errortype": code, **headers}, f'{{"message": "{message}"}}'.encode())


EXPIRED = "Signature expired: 20260101T000000Z is now earlier than 20260101T010000Z (20260101T010500Z - 5 min.)"


@pytest.mark.parametrize(
    ("answer", "sent"),
    [
        (refusal("InvalidSignatureException", EXPIRED), 1 + MOST_SIGNED_AGAIN),
        (refusal("RequestTimeTooSkewed", "The difference is too large."), 1 + MOST_SIGNED_AGAIN),
        (refusal("InvalidSignatureException", "The request signature we calculated does not match"), 1),
        (refusal("InvalidSignatureException", "Credential should be scoped to correct service: 'ebs'."), 1),
        (refusal("SignatureDoesNotMatch", EXPIRED), 1),
        (refusal("UnrecognizedClientException", "The security token included in the request is invalid."), 1),
        (refusal("ExpiredTokenException", "The security token included in the request is expired"), 1),
    ],
)
def test_only_a_wrong_time_is_signed_again_and_not_for_ever(answer: Answer, sent: int) -> None:
    transport = Refusing(answer)
    clock = Clock(monotonic=lambda: 0.0, sleep=lambda _: None, uniform=lambda _low, _high: 0.0)
    with pytest.raises(RequestRefused) as caught:
        put(EbsDirect(transport, region=REGION, clock=clock), "snap-1")
    assert transport.sent == sent
    assert answer.body.decode().split('"')[3] in str(caught.value)


@pytest.mark.parametrize("date", [None, "yesterday"])
def test_an_answer_that_does_not_tell_the_time_ends_it_in_awss_words(date: str | None) -> None:
    with bench() as at:
        ebs = at.client(clock_ahead=timedelta(hours=1))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("localcloud.ebs.httpserver.formatdate", lambda *_, **__: date or "")
            with pytest.raises(RequestRefused, match="Signature not yet current"):
                start(ebs)
        assert ebs.counts.requests["StartSnapshot"] == 1 + MOST_SIGNED_AGAIN


# -- bodies that come too slowly -----------------------------------------------------


@pytest.mark.parametrize("operation", ["PutSnapshotBlock", "StartSnapshot"])
def test_a_body_that_came_too_slowly_is_sent_again(operation: str) -> None:
    rule = {
        **{"operation": operation, "action": "error", "status": 400, "code": "ValidationException"},
        **{"reason": "WRITE_REQUEST_TIMEOUT", "message": "The request body was not received in time.", "times": 2},
    }
    with bench() as at:
        at.server.control("POST", "faults", json.dumps(rule).encode())
        ebs = at.client()
        snapshot_id = start(ebs)
        put(ebs, snapshot_id)
        assert ebs.counts.retries == {f"{operation} ValidationException": 2}


def test_another_validation_error_is_final() -> None:
    with bench() as at, pytest.raises(RequestRefused, match="INVALID_BLOCK"):
        put(at.client(), start(at.client()), 5_000)


# -- tags that spread ----------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0, 1.0, 20.0, TAGS_SPREAD_SECONDS - 10])
def test_a_denial_is_borne_with_while_the_tags_of_a_new_snapshot_spread(seconds: float) -> None:
    with bench(tag_spread_seconds=seconds) as at:
        ebs = at.client()
        snapshot_id = start(ebs)
        ebs.was_started(snapshot_id, seconds_ago=0.0)
        put(ebs, snapshot_id)
        ebs.complete_snapshot(snapshot_id, changed_blocks=1, linear_checksum=None)
        assert at.server.service.registry.snapshots[snapshot_id].sealed_with is not None


def test_a_denial_that_stays_fails_in_awss_words_a_minute_after_the_start_and_then_at_once() -> None:
    with bench() as at:
        at.policies.allow = False
        ebs = at.client()
        snapshot_id = start(ebs)
        ebs.was_started(snapshot_id, seconds_ago=0.0)
        began = at.clock.now()
        with pytest.raises(RequestRefused, match="no identity-based policy allows it"):
            put(ebs, snapshot_id)
        assert TAGS_SPREAD_SECONDS - 10 <= at.clock.now() - began <= TAGS_SPREAD_SECONDS + 10
        before, ended = at.calls()["PutSnapshotBlock"], at.clock.now()
        for index in range(100):
            with pytest.raises(RequestRefused):
                put(ebs, snapshot_id, index)
        assert (at.calls()["PutSnapshotBlock"] - before, at.clock.now()) == (100, ended)


@pytest.mark.parametrize("age", [math.inf, 3600.0, TAGS_SPREAD_SECONDS])
def test_a_worker_that_comes_later_does_not_wait(age: float) -> None:
    with bench() as at:
        at.policies.allow = False
        ebs = at.client()
        snapshot_id = start(ebs)
        sink = SnapshotSink(ebs, snapshot_id, started_seconds_ago=age)
        assert sink is not None
        with pytest.raises(RequestRefused):
            put(ebs, snapshot_id)
        assert ebs.counts.requests["PutSnapshotBlock"] == 1


def test_a_denied_reader_does_not_wait() -> None:
    transport = Refusing(refusal("AccessDeniedException", "no"))
    ebs = EbsDirect(transport, region=REGION)
    ebs.was_started("snap-1", seconds_ago=0.0)
    with pytest.raises(RequestRefused):
        ebs.list_blocks("snap-1")
    with pytest.raises(RequestRefused):
        ebs.get_block("snap-1", 0, "token")
    assert transport.sent == 2


@pytest.mark.parametrize("reason", ["UNAUTHORIZED_ACCOUNT", "DEPENDENCY_ACCESS_DENIED"])
def test_a_denial_that_no_tag_changes_is_final(reason: str) -> None:
    body = f'{{"message": "no", "Reason": "{reason}"}}'.encode()
    transport = Refusing(Answer(403, {"x-amzn-errortype": "AccessDeniedException"}, body))
    ebs = EbsDirect(transport, region=REGION)
    ebs.was_started("snap-1", seconds_ago=0.0)
    with pytest.raises(RequestRefused, match=reason):
        put(ebs, "snap-1")
    assert transport.sent == 1

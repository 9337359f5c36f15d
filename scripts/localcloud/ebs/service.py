"""The EBS part without any transport: one call in, one answer out.

Who calls (account, Region) is told by whoever brings the request, and has been proved there: see ``door``.
"""

from __future__ import annotations

import re
import secrets
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from localcloud.ebs import control, ec2, ec2_query
from localcloud.ebs.blockstore import BlockStore
from localcloud.ebs.clock import Clock, OffsetClock, Timers
from localcloud.ebs.config import EbsConfig
from localcloud.ebs.decisions import Caller, Decisions, Everything
from localcloud.ebs.errors import ApiError, EbsError, Ec2Error, invalid
from localcloud.ebs.events import Events, EventSink, KeptEvents
from localcloud.ebs.faults import Faults, Rule
from localcloud.ebs.kms import AnyKey, KeyResolver
from localcloud.ebs.messages import NOBODY, Request, Response, ebs_error_response
from localcloud.ebs.model import UNENCRYPTED, Encryption
from localcloud.ebs.modelled import Modelled
from localcloud.ebs.permissions import Permissions
from localcloud.ebs.reading import Reading
from localcloud.ebs.registry import Registry
from localcloud.ebs.stats import Stats
from localcloud.ebs.tokens import Tokens
from localcloud.ebs.writing import Writing
from localcloud.faults import flipped

CONTROL = "/_local/"
_ROUTES = (
    ("GET", re.compile(r"/snapshots/([^/]+)/blocks/([^/]+)"), "GetSnapshotBlock"),
    ("PUT", re.compile(r"/snapshots/([^/]+)/blocks/([^/]+)"), "PutSnapshotBlock"),
    ("GET", re.compile(r"/snapshots/([^/]+)/blocks"), "ListSnapshotBlocks"),
    ("GET", re.compile(r"/snapshots/([^/]+)/changedblocks"), "ListChangedBlocks"),
    ("POST", re.compile(r"/snapshots/completion/([^/]+)"), "CompleteSnapshot"),
    ("POST", re.compile(r"/snapshots"), "StartSnapshot"),
)


_WRONG = {
    "unencrypted": UNENCRYPTED,
    "other_key": Encryption(kms_key_arn="arn:aws:kms:us-east-1:999999999999:key/0ddba11-0000-4000-8000-000000000000"),
}


def is_put_block(method: str, path: str) -> bool:
    """Whether a request is PutSnapshotBlock, whose body alone need not be signed (botocore, ``authtype``)."""
    _, pattern, _ = _ROUTES[1]
    return method == "PUT" and pattern.fullmatch(path) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """What a request is about. ``operation`` is the API's or the EC2 action's name."""

    operation: str
    ec2: bool
    snapshot_id: str | None = None
    block: str = ""
    encryption: Encryption | None = None
    """The encryption that a fault gives a new snapshot instead of the one that it should have."""

    @property
    def block_index(self) -> int | None:
        return int(self.block) if self.block.isascii() and self.block.isdigit() else None


class EbsService:
    """The service: answers calls of the EBS direct APIs, of EC2 and of the control. Thread-safe.

    ``close`` gives the data files back.
    """

    def __init__(
        self,
        *,
        data_dir: Path,
        config: EbsConfig | None = None,
        clock: Clock | None = None,
        keys: KeyResolver | None = None,
        event_sink: EventSink | None = None,
        sleep: Callable[[float], None] = time.sleep,
        decisions: Decisions | None = None,
    ) -> None:
        config = config or EbsConfig()
        self.clock = clock or OffsetClock()
        self.timers = Timers(self.clock)
        self.store = BlockStore(data_dir)
        self.event_sink = event_sink or KeptEvents()
        self.registry = Registry(
            store=self.store,
            clock=self.clock,
            timers=self.timers,
            config=config,
            keys=keys or AnyKey(),
            events=Events(sink=self.event_sink, clock=self.clock, timers=self.timers, seed=config.seed),
            tokens=Tokens(secrets.token_bytes(32)),
        )
        self.faults = Faults([*(operation for _, _, operation in _ROUTES), *ec2.ACTIONS])
        self.stats = Stats()
        self._modelled = Modelled()
        self._reading = Reading(self.registry)
        self.permissions = Permissions(self.registry, decisions or Everything())
        self._writing = Writing(self.registry, self.permissions)
        self._sleep = sleep

    @property
    def config(self) -> EbsConfig:
        return self.registry.config

    def configure(self, changes: Mapping[str, object]) -> EbsConfig:
        """Change settings from now on; ``ValueError`` leaves them as they were."""
        self.registry.config = self.registry.config.merged(changes)
        return self.registry.config

    def tick(self) -> None:
        """Let what is due by the clock happen; every request does this first, too."""
        self.timers.run_due()

    def close(self) -> None:
        self.store.close()

    def handle(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes | bytearray,
        account: str,
        region: str,
        caller: Caller = NOBODY,
    ) -> Response:
        """Answer one request. ``path`` is decoded, ``query`` has one value a name, ``headers`` lower-case
        names. Never raises."""
        request = Request(
            method=method,
            path=path,
            query=query,
            headers=headers,
            body=body,
            account=account,
            region=region,
            caller=caller,
        )
        self.tick()
        if path.startswith(CONTROL):
            return control.handle(self, request)
        target = _target(request)
        received = len(body)
        answer = self._spoiled(request, target)
        if not target.ec2:
            answer.headers["x-amzn-RequestId"] = str(uuid.uuid4())
        self.stats.count(
            operation=target.operation,
            snapshot_id=target.snapshot_id,
            status=answer.status,
            code=answer.code,
            received=received,
            sent=len(answer.body),
        )
        return answer

    # -- faults ------------------------------------------------------------------

    def _spoiled(self, request: Request, target: _Target) -> Response:
        """The answer with the latency and the faults that are asked for."""
        if self.config.latency_ms and not target.ec2:
            self._sleep(self.config.latency_ms / 1000)
        rules = self.faults.matching(
            operation=target.operation,
            snapshot_id=target.snapshot_id,
            account=request.account,
            region=request.region,
            block_index=target.block_index,
        )
        if not rules:
            return self._answer(request, target)
        for rule in rules:
            if rule.action == "latency":
                self._sleep(rule.latency_ms / 1000)
            elif rule.action == "flip_request":
                request = replace(request, body=flipped(request.body, rule.bit))
            elif rule.action == "corrupt_block":
                self._corrupt(request, target, rule)
            elif rule.action in ("unencrypted", "other_key"):
                target = replace(target, encryption=_WRONG[rule.action])
        for rule in rules:
            refused = _refusal(rule, target)
            if refused is not None:
                return refused
            if rule.action == "close_before":
                return Response(500, cut="before", code="close_before")
        answer = self._answer(request, target)
        for rule in rules:
            if rule.action == "flip_response":
                answer.body = flipped(answer.body, rule.bit)
            elif rule.action == "close_after":
                answer.cut = "after"
            elif rule.action == "short_body":
                answer.cut = "short"
        return answer

    def _corrupt(self, request: Request, target: _Target, rule: Rule) -> None:
        registry = self.registry
        with registry.lock:
            snapshot = registry.snapshot(target.snapshot_id or "", request.region)
            slot = snapshot.blocks.get(target.block_index or 0) if snapshot else None
            if slot is not None:
                self.store.corrupt(slot, bit=rule.bit)

    # -- dispatch ----------------------------------------------------------------

    def _answer(self, request: Request, target: _Target) -> Response:
        try:
            self._modelled.check(request, target.operation, ec2=target.ec2)
            if target.ec2:
                self.permissions.check_ec2(request)
                return ec2.handle(self.registry, request)
            self.permissions.check_direct(request, target.operation, target.snapshot_id)
            return self._direct(request, target)
        except Ec2Error as refusal:
            return ec2_query.xml_error(refusal)
        except ApiError as refusal:
            return ebs_error_response(refusal)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            message = "The local cloud failed on this request; its log has the traceback."
            if target.ec2:
                return ec2_query.xml_error(Ec2Error("InternalError", message, status=500))
            return ebs_error_response(EbsError(status=500, code="InternalServerException", message=message))

    def _direct(self, request: Request, target: _Target) -> Response:
        snapshot_id = target.snapshot_id or ""
        match target.operation:
            case "GetSnapshotBlock":
                return self._reading.get(request, snapshot_id, target.block)
            case "PutSnapshotBlock":
                return self._writing.put(request, snapshot_id, target.block)
            case "ListSnapshotBlocks":
                return self._reading.list_blocks(request, snapshot_id)
            case "ListChangedBlocks":
                return self._reading.list_changed(request, snapshot_id)
            case "StartSnapshot":
                return self._writing.start(request, instead=target.encryption)
            case "CompleteSnapshot":
                return self._writing.complete(request, snapshot_id)
        raise EbsError(
            status=404, code="UnknownOperationException", message=f"No operation {request.method} {request.path}"
        )


def _target(request: Request) -> _Target:
    for method, pattern, operation in _ROUTES:
        if request.method == method and (match := pattern.fullmatch(request.path)):
            found = match.groups()
            return _Target(
                operation=operation,
                ec2=False,
                snapshot_id=found[0] if found else None,
                block=found[1] if len(found) > 1 else "",
            )
    if request.path == "/":
        values = ec2_query.parse(request)
        named = values.get("SnapshotId") or values.get("SnapshotId.1") or values.get("SourceSnapshotId")
        return _Target(operation=values.get("Action", "unknown"), ec2=True, snapshot_id=named)
    return _Target(operation="unknown", ec2=False)


def _refusal(rule: Rule, target: _Target) -> Response | None:
    if rule.action == "expired_token":
        reason = "INVALID_BLOCK_TOKEN" if target.operation == "GetSnapshotBlock" else "INVALID_PAGE_TOKEN"
        return ebs_error_response(invalid(reason, rule.message or "The token has expired."))
    if rule.action != "error":
        return None
    message = rule.message or f"Fault injected into {target.operation}."
    if target.ec2:
        return ec2_query.xml_error(Ec2Error(rule.code, message, status=rule.status))
    return ebs_error_response(EbsError(status=rule.status, code=rule.code, message=message, reason=rule.reason))

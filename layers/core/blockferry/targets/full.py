"""A snapshot that is made from nothing and gets everything: the target of copies and of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from blockferry.aws import snapshots
from blockferry.aws.call import Call
from blockferry.aws.ebs.client import NewSnapshot
from blockferry.aws.sessions import Identity
from blockferry.core.errors import InvalidRequest
from blockferry.core.holes import HolePolicy
from blockferry.core.together import together
from blockferry.jobs.execution import Execution
from blockferry.requests.parts import Target, TransferOptions
from blockferry.sources.kind import Examined, JobSource
from blockferry.targets.encryption import WantedEncryption
from blockferry.targets.proposal import Proposal, all_tags, job_tags, tags_left_out
from blockferry.targets.snapshot import SnapshotTarget


class FullSnapshot(SnapshotTarget):
    """A snapshot without a parent. ``encrypted`` is what is asked for, ``None`` where that is left to the account."""

    kind: Literal["snapshot"] = "snapshot"
    kms_key_arn: str | None
    encrypted: bool | None

    @property
    def wanted(self) -> WantedEncryption:
        asked = self.encrypted is not None or self.kms_key_arn is not None
        return WantedEncryption(
            self.kms_key_arn, must=asked and self.encrypted is not False, must_not=self.encrypted is False
        )

    def _new(self, token: str, tags: Mapping[str, str]) -> NewSnapshot:
        return NewSnapshot(
            volume_size_gib=self.volume_gib,
            client_token=token,
            description=self.description,
            tags=tags,
            encrypted=self.encrypted,
            kms_key_arn=self.kms_key_arn,
        )


class Asked(Protocol):
    """The part of a request that full targets come from."""

    @property
    def targets(self) -> Sequence[Target]: ...

    @property
    def options(self) -> TransferOptions: ...


def propose_full(
    request: Asked, found: Examined[JobSource], execution: Execution, call: Call
) -> Proposal[FullSnapshot]:
    """A target for each one that is asked for. Raises ``InvalidRequest`` where zeros could be lost, or for too many
    tags."""
    asked, options = request.targets, request.options
    # The account is asked once for each place: two targets of which nothing is said there are twins, and refused.
    encrypted = together(
        lambda target: _will_be_encrypted(target, found.encrypted, call), asked, most=call.throughput.places_at_a_time
    )
    holes = found.decide(options.holes, may_be_encrypted=any(each is not False for each in encrypted))
    if options.holes is HolePolicy.SKIP_ZERO:
        _refuse_skipping_zeros(asked, encrypted)
    own = job_tags(execution, holes.left) | dict(found.own_tags)
    targets = tuple(
        FullSnapshot(
            region=target.region,
            role_arn=target.role_arn,
            external_id=target.external_id,
            kms_key_arn=target.kms_key_arn,
            # What was decided about holes rests on it: it is asked for, and not left to a default that may change.
            encrypted=target.encrypted if target.kms_key_arn is not None else will_be,
            description=found.description if target.description is None else target.description,
            tags=all_tags(found.tags, target.tags, own, region=target.region),
            size_gib=found.size_gib,
        )
        for target, will_be in zip(asked, encrypted, strict=True)
    )
    return Proposal(targets, holes, warnings=(*found.warnings, *tags_left_out(found.tags)))


def _will_be_encrypted(target: Target, source_encrypted: bool, call: Call) -> bool | None:
    """Whether the target will be encrypted, the account's default included; ``None`` where that cannot be found out,
    which counts as true."""
    if target.encrypted is not None or target.kms_key_arn is not None:
        return target.encrypted is not False
    if source_encrypted:
        # The account's default may be no encryption: a copy is never less protected unless it is asked for.
        return True
    return snapshots.encrypted_by_default(call.ec2(Identity(target.region, target.role_arn, target.external_id)))


def _refuse_skipping_zeros(targets: Sequence[Target], encrypted: Sequence[bool | None]) -> None:
    for number, (target, will_be) in enumerate(zip(targets, encrypted, strict=True)):
        if will_be is not False:
            raise InvalidRequest(
                f"options.holes: skip_zero is not safe for targets[{number}]: the account encrypts by default in "
                f"{target.region}, or that cannot be found out, and a block that is absent there does not read as "
                "zeros; use preserve, or set encrypted to false"
            )

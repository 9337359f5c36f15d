"""What a job is about: one kind of source and one kind of target, from the request of each operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from blockferry.aws.regions import refuse_unknown_regions
from blockferry.aws.sessions import Identity
from blockferry.core.blocks import blocks_of_volume
from blockferry.core.holes import HoleDecision
from blockferry.jobs.call import JobCall
from blockferry.jobs.execution import Execution
from blockferry.jobs.record import JobWarning
from blockferry.requests.parts import Target, TransferOptions, parse
from blockferry.sources.kind import Examined
from blockferry.sources.readable import source_identity
from blockferry.targets.proposal import Proposal
from blockferry.transfer.job import Source as JobSource
from blockferry.transfer.job import Target as JobTarget

if TYPE_CHECKING:  # the rest of the program loads the request of its own operation only
    from blockferry.requests.archive import ArchiveRequest
    from blockferry.requests.copy import CopyRequest
    from blockferry.requests.fanout import FanoutRequest
    from blockferry.requests.objects import ObjectTarget
    from blockferry.requests.restore import RestoreRequest
    from blockferry.requests.sync import SyncRequest, SyncTarget

R = TypeVar("R", bound="CopyRequest | SyncRequest | FanoutRequest | ArchiveRequest | RestoreRequest")
E = TypeVar("E", bound=Examined["JobSource"])


@dataclass(frozen=True)
class Subject:
    """A source, the targets, and what to do about holes. ``total_blocks`` is ``None`` for a source that has to be
    prepared first; its targets have no size yet."""

    source: JobSource
    targets: Sequence[JobTarget]
    total_blocks: int | None
    holes: HoleDecision
    options: TransferOptions
    compared: bool
    warnings: tuple[JobWarning, ...]


@dataclass(frozen=True)
class Pairing(Generic[R, E]):
    """A source kind and a target kind: how the source that a request names is looked at, and how targets of it are
    proposed. Both raise ``InvalidRequest`` for what cannot work."""

    request: type[R]
    examine: Callable[[R, Identity, JobCall], E]
    propose: Callable[[R, E, Execution, JobCall], Proposal[JobTarget]]

    def subject(self, data: Mapping[str, Any], execution: Execution, call: JobCall) -> Subject:
        """What a request is about.

        Everything that can be known to be wrong is found here, before the first StartSnapshot. Raises
        ``InvalidRequest``.
        """
        request = parse(self.request, data, what=call.folder.operation)
        identity = source_identity(request.source, call.aws)
        asked: Sequence[Target | SyncTarget | ObjectTarget] = request.targets
        named = [(f"targets[{number}].region", target.region) for number, target in enumerate(asked) if target.region]
        refuse_unknown_regions(call.aws, [("source.region", identity.region), *named])
        found = self.examine(request, identity, call)
        proposal = self.propose(request, found, execution, call)
        sizes = [target.size_gib for target in proposal.targets]
        # A parent may be larger than its snapshot; what lies behind the snapshot's end is compared, too.
        largest = None if None in sizes else max(size for size in sizes if size is not None)
        return Subject(
            source=found.source,
            targets=proposal.targets,
            total_blocks=None if largest is None else blocks_of_volume(largest),
            holes=proposal.holes,
            options=request.options,
            compared=proposal.compared,
            warnings=proposal.warnings,
        )

"""What every kind of target is: a value that a job records, and that knows how it is started, written and ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws.call import Call
from blockferry.aws.errors import translated
from blockferry.aws.sessions import Identity
from blockferry.core.blocks import BlockRange
from blockferry.core.errors import BlockferryError, IncompleteTransfer, InvalidRequest
from blockferry.core.ports import BlockSink
from blockferry.jobs.call import JobCall
from blockferry.jobs.record import Place, Record, Sealing, Sums
from blockferry.sources.equal import Clone
from blockferry.sources.kind import JobSource

T = TypeVar("T")


class Started(Record):
    """What was begun for a target: the id of the snapshot that StartSnapshot answered, or of the archive. ``at`` is
    when, in UTC (ISO 8601)."""

    snapshot_id: str
    at: str


class Sealings(Protocol):
    """Where it is noted what AWS was asked to seal."""

    def sealing(self, snapshot_id: str) -> Sealing | None: ...

    def save_sealing(self, snapshot_id: str, sealing: Sealing) -> None: ...


class TargetFacts(Protocol):
    """What AWS says of a target. ``state`` is ``pending`` as long as it has to be waited for, and ``completed`` when it
    is whole; ``state_message`` says why it is neither."""

    @property
    def snapshot_id(self) -> str: ...

    @property
    def state(self) -> str: ...

    @property
    def state_message(self) -> str: ...


@dataclass(frozen=True)
class Looked:
    """By the positions of the targets: what AWS says, and why it says nothing. Each target is in one of them.
    ``InvalidRequest`` stands for one that is not there."""

    facts: Mapping[int, Any]
    errors: Mapping[int, BlockferryError]

    @property
    def unknown(self) -> bool:
        """Whether one of them is not known, as it may not be that was made a moment ago."""
        return any(isinstance(error, InvalidRequest) for error in self.errors.values())

    @property
    def pending(self) -> bool:
        """Whether one of them has to be waited for."""
        return any(facts.state == "pending" for facts in self.facts.values())


def looked_at(targets: Mapping[int, T], state: Callable[[T], Any]) -> Looked:
    """What is said of targets that are asked about one by one; ``state`` asks."""
    facts: dict[int, Any] = {}
    errors: dict[int, BlockferryError] = {}
    for number, target in targets.items():
        try:
            facts[number] = state(target)
        except (ClientError, BotoCoreError) as error:
            errors[number] = translated(error)
        except BlockferryError as error:
            errors[number] = error
    return Looked(facts, errors)


@dataclass(frozen=True)
class Forecast:
    """How many bytes blocks will take, as a sample of so many of them tells, in objects of a storage class. Without a
    sample it is certain."""

    sampled_blocks: int
    stored_bytes: int
    storage_class: str


class Leftover(Protocol):
    """What a job that cannot be finished has left. ``failed`` says that it can be of no use to anybody."""

    @property
    def name(self) -> str: ...

    @property
    def snapshot_id(self) -> str: ...

    @property
    def failed(self) -> bool: ...

    def discard(self, call: Call, sealings: Sealings | None, *, mark: str) -> str | None:
        """Delete it, if that may be; returns why it is kept, ``None`` when it is gone."""
        ...


class JobTarget(Place, ABC):
    """Something that a job makes. ``started`` is ``None`` until it is begun, ``size_gib`` as long as the size of the
    source is not known."""

    takes_up_a_place: ClassVar[bool] = False
    """Whether it is one of the pending snapshots that an account may have while it is made."""

    most_ahead: ClassVar[int | None] = None
    """Blocks that a worker may give to it before one that is still missing, where it has to keep them that long."""

    size_gib: int | None
    started: Started | None = None

    @property
    @abstractmethod
    def name(self) -> str:
        """How operators know it. Raises ``IncompleteTransfer`` when it was never started."""

    @property
    def snapshot_id(self) -> str:
        """The id of the snapshot or archive. Raises ``IncompleteTransfer`` when it was never started."""
        return self._begun.snapshot_id

    @property
    def shown_id(self) -> str:
        """The id as states and lists show it. Raises ``IncompleteTransfer`` when it was never started."""
        return self.snapshot_id

    @property
    def _begun(self) -> Started:
        if self.started is None:
            raise IncompleteTransfer(f"the target in {self.region} was never started")
        return self.started

    @property
    def volume_gib(self) -> int:
        """The size of the volume. Raises ``IncompleteTransfer`` as long as that is not known."""
        if self.size_gib is None:
            raise IncompleteTransfer(f"the size of the target in {self.region} is not known yet")
        return self.size_gib

    @abstractmethod
    def asks(self, home: str) -> str:
        """The name of the quota that writing a block uses once; ``home`` is the account of the function itself."""

    @property
    def in_steps_of(self) -> int:
        """Blocks that it takes as one: ranges end where so many do, or where the volume ends."""
        return 1

    def clone(self, number: int, call: Call) -> Clone:
        """Its parent, to be compared with the base. Raises ``IncompleteTransfer`` where it has none."""
        raise IncompleteTransfer(f"targets[{number}] in {self.region} has no parent to compare")

    @abstractmethod
    def writing(self, blocks: int, ranges: int) -> Mapping[str, int]:
        """Requests, by operation and Region, that write so many blocks of so many ranges to it."""

    @property
    def beside(self) -> Mapping[str, int]:
        """Requests of its life that no worker sends, which receipts count."""
        return {}

    def forecast(self, source: JobSource, call: JobCall, *, total_blocks: int, blocks: int) -> Forecast | None:
        """What it will be of the source's ``blocks``, as far as a sample of them tells; ``None`` where that is known
        without one."""
        return None

    @abstractmethod
    def planned(self) -> dict[str, Any]:
        """What a dry run tells of it."""

    # -- its life ----------------------------------------------------------------------

    @abstractmethod
    def start(self, call: Call, *, token: str, mark: str) -> Self:
        """Start it, or find the one that was started under the same ``token``; ``mark`` is that of its execution."""

    @abstractmethod
    def sink(self, call: JobCall, *, number: int, within: BlockRange) -> BlockSink:
        """Where the blocks of a range are written; ``number`` is the target's position."""

    def counted(
        self, call: JobCall, number: int, within: BlockRange, entries: Sequence[tuple[int, bytes]], allocated: int
    ) -> None:
        """Hold what it has of a range against ``entries``, the blocks that were moved there with their digests, and
        against the number of blocks that the source has ``allocated`` there. EBS does that by itself, at the end.

        Raises ``IncompleteTransfer`` when it is not all there.
        """

    @abstractmethod
    def seal(self, call: JobCall, number: int, sums: Sums, sealings: Sealings) -> None:
        """Make it what it is to be, for good. In doubt it stays pending, and is to be looked at."""

    @abstractmethod
    def mark_proved(self, call: Call, sums: Sums) -> None:
        """Let it tell that it is proved, once it is sealed."""

    @classmethod
    @abstractmethod
    def look(cls, targets: Mapping[int, Any], call: JobCall) -> Looked:
        """What AWS says of started targets, given by their positions."""

    @abstractmethod
    def confirm(self, facts: Any) -> None:
        """Raise when AWS does not call it completed and what was asked for: ``RetryLater`` while that may pass."""

    @abstractmethod
    def facts(self, found: Any) -> dict[str, Any]:
        """What a receipt tells of it beside what was written."""

    @abstractmethod
    def leftover(self, *, new: bool = False) -> Leftover | None:
        """What there is of it, for a job that cannot be finished; ``None`` when it was never started. ``new`` says that
        it was started by this very call, and may not be known everywhere yet."""

    @classmethod
    @abstractmethod
    def left_behind(cls, targets: Sequence[Any], identity: Identity, call: Call, *, mark: str) -> Sequence[Leftover]:
        """What an execution has started in a place and not completed; ``targets`` are those on record there."""

    @abstractmethod
    def asked_for(self, given: Mapping[str, Any]) -> bool:
        """Whether the input of an execution, which nobody has checked, names the place of this target."""

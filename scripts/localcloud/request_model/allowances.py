"""Where AWS is known to take what its model forbids. Every row says why and by what source; there are few."""

from __future__ import annotations

from dataclasses import dataclass

from localcloud.request_model.problems import Kind, Problem


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """A problem that AWS passes over. ``member`` is the end of its path; ``constraint`` is how its words begin."""

    service: str
    operation: str = "*"
    member: str
    kind: Kind
    constraint: str = ""
    reason: str

    def covers(self, service: str, operation: str, problem: Problem) -> bool:
        return (
            self.service == service
            and self.kind == problem.kind
            and self.operation in ("*", operation)
            and problem.path[-1:] == (self.member,)
            and problem.constraint.startswith(self.constraint)
        )


ALLOWANCES: tuple[Allowance, ...] = (
    Allowance(
        service="ebs",
        member="MaxResults",
        kind="range",
        constraint="Member must have value greater than or equal to",
        reason="fewer than 100 are taken for 100 (EBS direct API reference, ListSnapshotBlocks, MaxResults)",
    ),
)


def is_allowed(service: str, operation: str, problem: Problem) -> bool:
    return any(each.covers(service, operation, problem) for each in ALLOWANCES)

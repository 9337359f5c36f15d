"""What a check of a definition finds."""

from __future__ import annotations

from dataclasses import dataclass

ERROR = "ERROR"
WARNING = "WARNING"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One finding. ``location`` is a JSON pointer into the definition, as ValidateStateMachineDefinition gives it."""

    severity: str
    code: str
    message: str
    location: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message} at {self.location or '/'}"


class Findings:
    """Collects findings."""

    def __init__(self) -> None:
        self.all: list[Finding] = []

    def error(self, code: str, message: str, location: str) -> None:
        self.all.append(Finding(severity=ERROR, code=code, message=message, location=location))

    def warning(self, code: str, message: str, location: str) -> None:
        self.all.append(Finding(severity=WARNING, code=code, message=message, location=location))

    def schema(self, message: str, location: str) -> None:
        """A value of the wrong shape, or a field that is not there or not known."""
        self.error("SCHEMA_VALIDATION_FAILED", message, location)

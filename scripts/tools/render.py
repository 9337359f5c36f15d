"""Write statemachines/*.asl.json from ``machine_definitions``, and the schemas of their inputs from the models.

What comes out is checked in, since that is where people read a machine and what Terraform deploys; a test holds it
against the definitions.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from blockferry.operations import OPERATIONS
from blockferry.requests.parts import schema

from tools.environment import repository_root
from tools.machine_definitions import MACHINES, rendered


def write_machines(folder: Path) -> list[Path]:
    """Bring the definitions in ``folder`` up to date; returns the files that were not."""
    return _write({folder / f"{name}.asl.json": rendered(definition) for name, definition in MACHINES.items()})


def write_schemas(folder: Path) -> list[Path]:
    """Bring the schemas of inputs in ``folder`` up to date; returns the files that were not."""
    return _write({folder / f"{name}.schema.json": schema_of(name) for name in OPERATIONS})


def schema_of(operation: str) -> str:
    """The text of an input's schema, as it lies in statemachines/schemas/."""
    found = schema(OPERATIONS[operation].request, title=f"Input of the state machine {operation}")
    return json.dumps(found, indent=2) + "\n"


def _write(texts: Mapping[Path, str]) -> list[Path]:
    written = [file for file, text in texts.items() if not file.is_file() or file.read_text() != text]
    for file in written:
        file.write_text(texts[file])
    return written


def main(arguments: list[str] | None = None) -> int:
    """The command ``scripts/render``."""
    parser = argparse.ArgumentParser(
        prog="scripts/render",
        description="Write statemachines/*.asl.json from the parts in scripts/tools/machine_definitions.py, and the "
        "schemas of their inputs from the models.",
    )
    parser.parse_args(arguments)
    folder = repository_root() / "statemachines"
    for file in (*write_machines(folder), *write_schemas(folder / "schemas")):
        print(f"wrote {file.relative_to(repository_root())}")
    return 0

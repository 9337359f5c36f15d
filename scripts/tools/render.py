"""Write statemachines/*.asl.json from the definitions in ``machine_definitions``.

What comes out is checked in, since that is where people read a machine and what Terraform deploys; a test holds it
against the definitions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tools.environment import repository_root
from tools.machine_definitions import MACHINES, rendered


def write_machines(folder: Path) -> list[Path]:
    """Bring the definitions in ``folder`` up to date; returns the files that were not."""
    written = []
    for name, definition in MACHINES.items():
        file, text = folder / f"{name}.asl.json", rendered(definition)
        if not file.is_file() or file.read_text() != text:
            file.write_text(text)
            written.append(file)
    return written


def main(arguments: list[str] | None = None) -> int:
    """The command ``scripts/render``."""
    parser = argparse.ArgumentParser(
        prog="scripts/render",
        description="Write statemachines/*.asl.json from the parts in scripts/tools/machine_definitions.py.",
    )
    parser.parse_args(arguments)
    for file in write_machines(repository_root() / "statemachines"):
        print(f"wrote {file.relative_to(repository_root())}")
    return 0

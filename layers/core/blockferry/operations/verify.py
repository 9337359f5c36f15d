"""Verify: what an archive holds."""

from __future__ import annotations

from blockferry.operations.operation import Operation
from blockferry.requests.verify import VerifyRequest

OPERATION = Operation(
    name="verify",
    summary="check an archive, in full or by a sample, and against its snapshot or another archive",
    description="Verifies an archive: every stored hash or a sample of them, and, if asked for, what it holds "
    "against a snapshot or a second archive. Damage ends it as ArchiveDamaged, with all that was found on record.",
    request=VerifyRequest,
    functions=("plan_verification", "verify_blocks", "conclude_verification"),
)

"""What can go wrong with a job, as its operator sees it.

The class name becomes the error name of the failed execution, the text its cause. Every text says what was
being done, to which resource, what AWS said, and what to do next.
"""

from __future__ import annotations


class BlockferryError(Exception):
    """Any failure this package reports on purpose."""


class InvalidRequest(BlockferryError):
    """The input, or a resource that it names, cannot be used; nothing was started."""


class NoCredentials(InvalidRequest):
    """Requests cannot be signed as anybody: none was sent."""


class RequestRefused(BlockferryError):
    """AWS refused a request that no repetition can mend (permission, validation, quota)."""


class RetryLater(BlockferryError):
    """A request's retry budget is used up on errors that pass; a redrive goes on from here."""


class ChecksumMismatch(BlockferryError):
    """A block's bytes do not have the SHA-256 that was sent with them, read after read."""


class IncompleteTransfer(BlockferryError):
    """What was written is not what the source holds; the targets were not completed."""


class TargetFailed(BlockferryError):
    """A target snapshot left the state it must be in (error, deleted, or completed by someone else)."""


class TransferFailed(BlockferryError):
    """The job cannot be done, whatever is repeated; the text says what of it is deleted and what is kept."""


class EncryptionDiffers(BlockferryError):
    """A target came out with another key than was asked for, or unencrypted; nothing more may be written to it."""


class OutOfTime(BlockferryError):
    """The deadline of this invocation is near; the block was not finished and is left to the next one."""


class ParentDiffers(BlockferryError):
    """A snapshot that was to be built upon does not hold what it was said to hold."""


class SourceChanged(BlockferryError):
    """An image was replaced or deleted while it was read; what was read of it does not belong together."""


class UnreadableSource(BlockferryError):
    """The disk or file system of an image on this machine does not give what it holds."""


class NoRoom(BlockferryError):
    """A disk of this machine is full, or cannot be written to, where a command keeps what it needs meanwhile."""


class ArchiveDamaged(BlockferryError):
    """An archive, or an object of it, is not what was written, or is of another version; nothing read of it counts."""


class ItemsFailed(BlockferryError):
    """Some of many things that a run looked at could not be done; the others were."""

"""S3 objects of Distributed Maps, in the local cloud's own S3."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import IO, Any, Final

import botocore.exceptions

from localcloud.states.aws_clients import AwsClients
from localcloud.states.services import Caller

_BUFFER_BYTES: Final = 1024 * 1024
_REGION: Final = "x-amz-bucket-region"


class AwsObjects:
    def __init__(self, clients: AwsClients) -> None:
        self._clients = clients

    def open(self, caller: Caller, arguments: Mapping[str, Any]) -> IO[bytes]:
        self._check_region(caller, arguments["Bucket"])
        answer = self._call(caller, "get_object", **arguments)
        return io.BufferedReader(_Body(answer["Body"]), _BUFFER_BYTES)

    def list(self, caller: Caller, arguments: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        self._check_region(caller, arguments["Bucket"])
        more: dict[str, Any] = {}
        while True:
            page = self._call(caller, "list_objects_v2", **arguments, **more)
            for entry in page.get("Contents", ()):
                yield {
                    "Etag": entry["ETag"],
                    "Key": entry["Key"],
                    "LastModified": int(entry["LastModified"].timestamp()),
                    "Size": entry["Size"],
                    "StorageClass": entry.get("StorageClass", "STANDARD"),
                }
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def put(self, caller: Caller, *, bucket: str, key: str, body: IO[bytes]) -> None:
        self._check_region(caller, bucket)
        self._call(caller, "put_object", Bucket=bucket, Key=key, Body=body, ContentType="application/json")

    def _call(self, caller: Caller, operation: str, **arguments: Any) -> Any:
        return _called(self._clients.get("s3", caller), operation, **arguments)

    def _check_region(self, caller: Caller, bucket: str) -> None:
        """Datasets and results need a bucket of the machine's own Region, which S3 tells whoever asks."""
        try:
            answer = self._clients.of_account("s3", caller).head_bucket(Bucket=bucket)
        except botocore.exceptions.ClientError as error:
            # The policy of the bucket may keep even the account's root out.
            answer = error.response
            if _REGION not in answer["ResponseMetadata"].get("HTTPHeaders", {}):
                raise OSError(_reason(error, {"Bucket": bucket})) from error
        except botocore.exceptions.BotoCoreError as error:
            raise OSError(_reason(error, {"Bucket": bucket})) from error
        region = answer["ResponseMetadata"]["HTTPHeaders"][_REGION]
        if region != caller.region:
            raise OSError(f"The bucket {bucket} is in {region}, the state machine in {caller.region}.")


def _called(client: Any, operation: str, **arguments: Any) -> Any:
    try:
        return getattr(client, operation)(**arguments)
    except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
        raise OSError(_reason(error, arguments)) from error


def _reason(error: Exception, arguments: Mapping[str, Any]) -> str:
    where = ", ".join(f"{name}: {arguments[name]}" for name in ("Bucket", "Key", "Prefix") if name in arguments)
    if isinstance(error, botocore.exceptions.ClientError):
        facts = error.response.get("Error", {})
        return f"{facts.get('Message', '')} ({facts.get('Code', '')}; {where})"
    return f"{error} ({where})"


class _Body(io.RawIOBase):
    """A streaming body as a raw stream, so that it can be buffered and read by lines."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._body.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._body.close()
        super().close()

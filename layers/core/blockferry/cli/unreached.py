"""Errors of a command line that does not get through to AWS, or not as the one it takes itself for."""

from __future__ import annotations

import os

from botocore.exceptions import (
    ClientError,
    ConfigNotFound,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)

NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, ProfileNotFound, ConfigNotFound)
"""What botocore raises before anything is sent."""

WRONG_SECRET = frozenset({"AuthFailure", "InvalidSignatureException", "SignatureDoesNotMatch"})
EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
UNKNOWN_KEY = frozenset({"InvalidAccessKeyId", "InvalidClientTokenId", "UnrecognizedClientException"})


def told(error: Exception) -> str:
    """The error's own words, in one line where they are a signature's working, and what to do about it."""
    if isinstance(error, NO_CREDENTIALS):
        return (
            f"{_sentence(error)}: nothing was sent; give credentials as for the AWS CLI, by environment variables, "
            f"AWS_PROFILE, `aws sso login` or a role{_local_cloud()}"
        )
    if isinstance(error, EndpointConnectionError):
        if os.environ.get("AWS_ENDPOINT_URL"):
            return f"{_sentence(error)}, which AWS_ENDPOINT_URL names: unset it to reach AWS{_local_cloud()}"
        return f"{_sentence(error)}: check the network, and the spelling of the Region"
    if isinstance(error, ClientError):
        code = error.response["Error"]["Code"]
        if code in WRONG_SECRET:
            # What follows is how the signature was to be made, over many lines.
            return f"{_sentence(error)}: check the secret key, and the clock of this machine{_local_cloud()}"
        if code in EXPIRED:
            return f"{_sentence(error)}: get new credentials, and the same command again{_local_cloud()}"
        if code in UNKNOWN_KEY:
            return f"{_sentence(error)}: check the access key, and whether it is one of this account{_local_cloud()}"
    return str(error)


def _sentence(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(". ")


def _local_cloud() -> str:
    """What to do where a local cloud is meant, which has its own address and secrets."""
    if not os.environ.get("AWS_ENDPOINT_URL"):
        return ""
    return (
        "; of a local cloud see with scripts/cloud status whether it is up, and give this shell its present "
        'address and secret: eval "$(scripts/cloud env)"'
    )

"""What a service says to a request that is not signed as it must be.

Source: "Common error types" of the API references; S3's and EC2's lists of error codes. The texts of a skewed clock, of
a wrong scope and of a wrong signature are AWS's: clients tell by them what to do.
"""

from __future__ import annotations

from localcloud.signatures import Kind, SignatureRefused

_QUERY: dict[Kind, tuple[int, str]] = {
    "missing": (403, "MissingAuthenticationToken"),
    "incomplete": (400, "IncompleteSignature"),
    "unsupported": (400, "IncompleteSignature"),
    "unknown key": (403, "InvalidClientTokenId"),
    "invalid token": (403, "InvalidClientTokenId"),
    "expired token": (403, "ExpiredToken"),
}
_JSON: dict[Kind, str] = {
    "missing": "MissingAuthenticationTokenException",
    "incomplete": "IncompleteSignatureException",
    "unsupported": "IncompleteSignatureException",
    "unknown key": "UnrecognizedClientException",
    "invalid token": "UnrecognizedClientException",
    "expired token": "ExpiredTokenException",
}
_S3: dict[Kind, tuple[int, str, str]] = {
    "missing": (403, "AccessDenied", "Access Denied"),
    "incomplete": (400, "AuthorizationHeaderMalformed", ""),
    "unsupported": (
        400,
        "InvalidRequest",
        "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
    ),
    "unknown key": (403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
    "invalid token": (400, "InvalidToken", "The provided token is malformed or otherwise invalid."),
    "expired token": (400, "ExpiredToken", "The provided token has expired."),
    "scope": (400, "AuthorizationHeaderMalformed", ""),
    "skewed": (
        403,
        "RequestTimeTooSkewed",
        "The difference between the request time and the current time is too large.",
    ),
    "expired": (403, "AccessDenied", "Request has expired"),
    "unsigned header": (403, "AccessDenied", ""),
    "mismatch": (403, "SignatureDoesNotMatch", ""),
    "payload": (
        400,
        "XAmzContentSHA256Mismatch",
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
    ),
    "no payload hash": (400, "InvalidRequest", ""),
}
_MESSAGES: dict[Kind, str] = {"missing": "Request is missing Authentication Token"}


def told(refused: SignatureRefused, *, service: str, protocol: str) -> tuple[int, str, str]:
    """Status, code and message of the refusal in the service's own terms. ``protocol`` is botocore's name of it."""
    message = _MESSAGES.get(refused.kind, str(refused))
    if service == "s3":
        status, code, text = _S3[refused.kind]
        return status, code, text or message
    if protocol == "ec2":
        if refused.kind in ("skewed", "expired", "expired token"):
            return 400, "RequestExpired", f"Request has expired. {message}"
        return 401, "AuthFailure", "AWS was not able to validate the provided access credentials"
    if protocol in ("query", "rest-xml"):
        return *_QUERY.get(refused.kind, (403, "SignatureDoesNotMatch")), message
    status = 403 if protocol == "rest-json" else 400
    return status, _JSON.get(refused.kind, "InvalidSignatureException"), message

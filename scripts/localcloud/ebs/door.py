"""Who may come in at the EBS server's own door, and whose request it is.

As at the main server's (``localcloud.door``): no web page, control with the token only, everything else with a verified
signature. What the main server passes on has been verified there and comes with the token and the caller's account.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable
from urllib.parse import parse_qsl, unquote

from localcloud import web_guard
from localcloud.ebs.callers import Callers
from localcloud.ebs.decisions import Caller
from localcloud.ebs.ec2_query import xml_error
from localcloud.ebs.errors import EbsError, Ec2Error
from localcloud.ebs.httpserver import RawRequest
from localcloud.ebs.messages import NOBODY, Response, ebs_error_response, json_response
from localcloud.ebs.service import CONTROL, EbsService, is_put_block
from localcloud.local_keys import TOKEN_HEADER, LocalKeys
from localcloud.signature_errors import told
from localcloud.signatures import Claim, Incoming, SignatureRefused, Verifier, claim_of, literal_payload

_ACCOUNT, _REGION = "x-local-account", "x-local-region"


class EbsDoor:
    """Answers every request of the EBS server. Thread-safe."""

    def __init__(self, service: EbsService, callers: Callers, keys: LocalKeys, *, port: Callable[[], int]) -> None:
        self._service = service
        self._callers = callers
        self._keys = keys
        self._port = port
        self._verifier = Verifier(callers.secret_of, now=self.now)

    def now(self) -> float:
        """Epoch seconds by the clock that signatures are judged by: the machine's, and as wrong as it is set to be.

        Not the server's own clock, which tests move by hours while clients sign by the machine's.
        """
        return time.time() + self._service.config.signature_clock_offset_seconds

    def serve(self, raw: RawRequest) -> Response:
        path, _, query = raw.target.partition("?")
        reason = web_guard.refusal(raw.headers, port=self._port())
        if reason:
            return json_response(403, {"message": reason})
        plain = unquote(path)
        has_token = self._keys.opens(raw.headers)
        if plain.startswith(CONTROL) and not has_token:
            return json_response(403, {"message": f"The control of the EBS server takes {TOKEN_HEADER} only."})
        trusted = has_token and (_ACCOUNT in raw.headers or plain.startswith(CONTROL))
        request = Incoming(method=raw.method, path=path, query=query, headers=raw.sent)
        try:
            claim = claim_of(request)
            if not trusted:
                if claim is None:
                    raise SignatureRefused("missing", "")
                self._verify(claim, request, plain, raw.body)
            account, region = "", ""
            if trusted:
                account, region = raw.headers.get(_ACCOUNT, ""), raw.headers.get(_REGION, "")
            elif claim is not None:
                account, region = self._callers.owner_of(claim.access_key).account, claim.region
        except SignatureRefused as refused:
            return _refusal(refused, ec2=plain == "/")
        except OSError as error:
            print(f"the main server did not say whose request this is: {error}", file=sys.stderr, flush=True)
            message = "The local cloud's main server did not say whose access key this is."
            return ebs_error_response(EbsError(status=500, code="InternalServerException", message=message))
        caller = Caller(claim.access_key, claim.session_token) if claim is not None else NOBODY
        values = dict(parse_qsl(query, keep_blank_values=True))
        return self._service.handle(raw.method, plain, values, raw.headers, raw.body, account, region, caller)

    def _verify(self, claim: Claim, request: Incoming, path: str, body: bytes | bytearray) -> None:
        service = "ec2" if path == "/" else "ebs"
        unsigned = is_put_block(request.method, path)
        payload = literal_payload(claim, request, service=service, unsigned_body=unsigned)
        if payload is None:
            payload = hashlib.sha256(body).hexdigest()
        self._verifier.check(claim, request, service=service, payload=payload)


def _refusal(refused: SignatureRefused, *, ec2: bool) -> Response:
    service, protocol = ("ec2", "ec2") if ec2 else ("ebs", "rest-json")
    status, code, message = told(refused, service=service, protocol=protocol)
    if ec2:
        return xml_error(Ec2Error(code, message, status=status))
    return ebs_error_response(EbsError(status=status, code=code, message=message))

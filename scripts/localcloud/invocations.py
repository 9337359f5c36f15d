"""An answer that was given to a call is given again when the same call is sent again.

AWS's SDKs send the same ``amz-sdk-invocation-id`` with every attempt of one call. A client that lost the answer to a
creation or deletion repeats it and would hear of a conflict with itself. So the answers of completed creations and
deletions are kept for a while, and the next attempt of the same call gets the first one's answer; it is not carried
out again. AWS promises no such thing. Therefore only calls of management are kept, none that moves data or runs
something: what jobs do meets the same conflicts here as there. An answer that a fault loses or spoils on purpose
(``service_faults``) was not given and is not kept.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from localcloud.asgi import Application, KeptAnswer, Message, Receive, Send, replayed, whole_body
from localcloud.asked import Asked
from localcloud.host import Host
from localcloud.service_faults import SPOILED

MAX_ANSWERS = 2_000
MAX_ANSWER_BYTES = 32 * 1024
REPLAYED = (b"x-local-replayed", b"true")
"""Header of an answer that is given again."""
_MANAGEMENT = re.compile(r"(Create|Delete|Publish|Add|Remove)[A-Z]\w*")
_REST_MANAGEMENT = re.compile(r"(POST|DELETE) (?!.*/(invocations|invoke-async|response-streaming-invocations)$)")
_DATA_SERVICES = frozenset({"dynamodb", "ebs", "ec2", "s3", "sns", "sqs", "sts"})

Key = tuple[str, ...]


def install(host: Host) -> None:
    answers = Answers()
    host.layers.append(lambda base: ReplayLayer(base, answers))


@dataclass(frozen=True, kw_only=True)
class Answer:
    start: Mapping[str, Any]
    body: bytes


class Answers:
    """The last answers by call, so many and each so large at most."""

    def __init__(self, *, most: int = MAX_ANSWERS, most_bytes: int = MAX_ANSWER_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._kept: OrderedDict[Key, Answer] = OrderedDict()

    def of(self, key: Key) -> Answer | None:
        return self._kept.get(key)

    def keep(self, key: Key, answer: Answer) -> None:
        if len(answer.body) > self._most_bytes:
            return
        self._kept[key] = answer
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)


class ReplayLayer:
    """An ASGI application: the base, which carries out a call of management once."""

    def __init__(self, base: Application, answers: Answers) -> None:
        self._base = base
        self._answers = answers

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _may_be_management(Asked.of(scope, b"")):
            await self._base(scope, receive, send)
            return
        body = await whole_body(receive)
        if body is None:
            return
        key = _key(scope, body)
        given = self._answers.of(key) if key is not None else None
        if given is not None:
            await send({**given.start, "headers": [*given.start["headers"], REPLAYED]})
            await send({"type": "http.response.body", "body": given.body})
            return
        kept = KeptAnswer()

        async def given_and_kept(message: Message) -> None:
            await kept(message)
            await send(message)

        await self._base(scope, replayed(body, receive), given_and_kept if key is not None else send)
        if key is not None and kept.is_whole and 200 <= kept.start["status"] < 300 and not scope.get(SPOILED):
            self._answers.keep(key, Answer(start=kept.start, body=kept.body))


def _may_be_management(asked: Asked) -> bool:
    """By the head alone, so that bodies of data are not held up. A form's operation is known from its body only."""
    if not asked.invocation or asked.service in _DATA_SERVICES:
        return False
    return bool(_MANAGEMENT.fullmatch(asked.operation) or _REST_MANAGEMENT.match(asked.operation))


def _key(scope: Mapping[str, Any], body: bytes) -> Key | None:
    """What tells a call from every other; ``None`` for calls that are not kept."""
    asked = Asked.of(scope, body)
    if not _may_be_management(asked):
        return None
    query = scope.get("query_string", b"").decode("latin-1")
    digest = hashlib.sha256(body).hexdigest()
    return asked.invocation, asked.access_key, asked.region, asked.service, asked.operation, query, digest

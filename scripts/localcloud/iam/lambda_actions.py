"""Which action a request to Lambda is, by the paths of Lambda's service model.

The base's own list of paths is short: what it lacks (GetAccountSettings, the versions of a layer) it lets everybody do,
and some it takes for another action. Source of the names that differ from the operation's: service authorization
reference, "Actions defined by AWS Lambda".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from re import Pattern

from localcloud.host import Host

ACTION_NAMES = "core.iam_actions"
NAMES = {
    "GetLayerVersionByArn": "GetLayerVersion",
    "Invoke": "InvokeFunction",
    "InvokeWithResponseStream": "InvokeFunction",
}

Route = tuple[str, Pattern[str], str, int, dict[str, str]]
"""A path of Lambda's API: method, path, operation, how specific the path is (the most specific ones are listed first),
required query parameters."""


def install(host: Host) -> None:
    load: Callable[[str], Sequence[Route]] = host.lookup(ACTION_NAMES, "_load_botocore_routes")
    base: Callable[[str, str], str | None] = host.lookup(ACTION_NAMES, "_lambda_action")
    routes: list[Route] = []

    def action(method: str, path: str) -> str | None:
        if not routes:
            routes.extend(load("lambda"))
        for verb, pattern, operation, _, query in routes:
            if verb == method and not query and pattern.match(path):
                return NAMES.get(operation, operation)
        return base(method, path)

    host.replace(ACTION_NAMES, "_lambda_action", action)

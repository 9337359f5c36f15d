"""Plugs the EBS process into the main server.

Every request signed for ``ebs`` and every EC2 action about snapshots goes to the EBS process, with the
caller's account and Region in ``x-local-account`` and ``x-local-region``. Volumes stay known to the base
(instances are there) and their contents to the EBS process; tags are kept by whoever keeps the resource.

A fault that closes or cuts a connection reaches a client of the main server as a 500: the exact failure
is seen at the EBS process's own address.
"""

from __future__ import annotations

import asyncio
import json
import re
import xml.etree.ElementTree as ElementTree
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

from localcloud.ebs import attachments, ec2_instances
from localcloud.ebs.ec2 import ACTIONS
from localcloud.ebs.ec2_query import NAMESPACE
from localcloud.ebs.forwarder import Forwarder
from localcloud.host import ControlError, ControlRequest, Handler, Host, Response

EC2 = "services.ec2"
EVENTS = "services.eventbridge"
RESPONSES = "core.responses"
_BASE_KEEPS = frozenset({"DescribeVolumes", "DeleteVolume", "CreateTags", "DeleteTags", "DescribeTags"})
"""Actions that the EBS process has too, but not alone."""
_KEPT_EVENTS = 1000
FORWARDING_THREADS = 64


def install(host: Host) -> None:
    forwarder = Forwarder(host.ebs_endpoint_url, host.keys)
    host.on_shutdown(forwarder.close)
    # Without an entry the router loads every model of botocore to find out whether "ebs" is a service.
    patterns = host.lookup("core.router", "SERVICE_PATTERNS")
    if patterns is not None:
        patterns["ebs"] = {"host_patterns": [r"ebs\."], "credential_scope": "ebs"}
    # A pool of its own: a burst of block transfers must not hold up what else the base does in threads.
    pool = ThreadPoolExecutor(FORWARDING_THREADS, thread_name_prefix="ebs-forward")
    host.on_shutdown(lambda: pool.shutdown(wait=False, cancel_futures=True))
    snapshots = SnapshotActions(host, forwarder, pool, host.handlers["ec2"])
    host.handlers["ebs"] = snapshots.ebs
    host.handlers["ec2"] = snapshots.ec2
    host.control["events"] = SnapshotEvents(host)


class SnapshotActions:
    """The handlers of ``ebs`` and ``ec2``."""

    def __init__(self, host: Host, forwarder: Forwarder, pool: Executor, base: Handler) -> None:
        self._forwarder = forwarder
        self._pool = pool
        self._base = base
        self._account: Callable[[], str] = host.lookup(RESPONSES, "get_account_id")
        self._region: Callable[[], str] = host.lookup(RESPONSES, "get_region")
        self._volumes: dict[str, dict[str, Any]] = host.lookup(EC2, "_volumes")
        self._instances: dict[str, dict[str, Any]] = host.lookup(EC2, "_instances")
        self._refuse: Callable[[str, str, int], Response] = host.lookup(EC2, "_error")
        self._tags: dict[str, list[dict[str, str]]] = host.lookup(EC2, "_tags")

    async def ebs(
        self, method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any]
    ) -> Response:
        return await self._forward(method, path, headers, body, query)

    async def _forward(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, query: Mapping[str, Any]
    ) -> Response:
        known = {**headers, "x-local-account": self._account(), "x-local-region": self._region()}
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._forwarder.send, method, path, query, known, body)

    async def ec2(
        self, method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any]
    ) -> Response:
        params = _flat(query, body)
        action = params.get("Action", "")

        async def here() -> Response:
            return await self._base(method, path, headers, body, query)

        async def there(changed: Mapping[str, str] | None = None) -> Response:
            form = urlencode(changed if changed is not None else params).encode()
            sent = {**headers, "content-type": "application/x-www-form-urlencoded; charset=utf-8"}
            return await self._forward("POST", "/", sent, form, {})

        match action:
            case "CreateTags" | "DeleteTags":
                return await self._change_tags(params, headers, there)
            case "DescribeTags":
                return await self._describe_tags(params, here, there)
            case "DescribeVolumes":
                return self._with_keys(await here())
            case "DeleteVolume":
                answer = await here()
                if answer[0] == 200:
                    path = f"/_local/volumes/{params.get('VolumeId', '')}"
                    await self._forward("DELETE", path, {}, b"", {})
                return answer
            case "DescribeInstances":
                refused = ec2_instances.refusal(params)
                if refused is not None:
                    return self._refuse(*refused, 400)
                answer = await here()
                return answer if answer[0] != 200 else (200, answer[1], ec2_instances.page(params, answer[2]))
            case "AttachVolume" | "DetachVolume":
                return await self._attach(params, here)
            case "CreateVolume":
                answer = await there()
                if answer[0] == 200:
                    self._take_volume(answer[2])
                return answer
            case "CreateSnapshot":
                await self._hand_over_volumes(lambda record: record["VolumeId"] == params.get("VolumeId"))
                return await there()
            case "CreateSnapshots":
                instance = params.get("InstanceSpecification.InstanceId")
                await self._hand_over_volumes(
                    lambda record: any(a.get("InstanceId") == instance for a in record.get("Attachments", []))
                )
                return await there()
        if action in ACTIONS and action not in _BASE_KEEPS:
            return await there()
        return await here()

    async def _attach(self, params: Mapping[str, str], here: Callable[[], Any]) -> Response:
        refused = attachments.refusal(params, self._volumes, self._instances)
        if refused is not None:
            return self._refuse(*refused, 400)
        volume_id = params.get("VolumeId", "")
        earlier = list(self._volumes.get(volume_id, {}).get("Attachments") or [])
        answer: Response = await here()
        if answer[0] == 200 and params["Action"] == "AttachVolume":
            attachments.attached(params, earlier, self._volumes, self._instances)
        elif answer[0] == 200:
            attachments.detached(volume_id, self._instances)
        return answer

    # -- tags --------------------------------------------------------------------

    async def _change_tags(
        self, params: Mapping[str, str], headers: dict[str, str], there: Callable[..., Any]
    ) -> Response:
        """Snapshots' tags there, all others here; nothing is changed here if it is refused there."""
        ids = [value for name, value in params.items() if re.fullmatch(r"ResourceId\.[0-9]+", name)]
        snapshots = [each for each in ids if each.startswith("snap-")]
        others = [each for each in ids if not each.startswith("snap-")]
        answer: Response | None = None
        if snapshots:
            answer = await there(_with_ids(params, snapshots))
            if answer is not None and answer[0] != 200:
                return answer
        if others or answer is None:
            body = urlencode(_with_ids(params, others)).encode()
            return await self._base("POST", "/", headers, body, {})
        return answer

    async def _describe_tags(
        self, params: Mapping[str, str], here: Callable[[], Any], there: Callable[..., Any]
    ) -> Response:
        """What both know, in one answer; so there is one page only."""
        unpaged = {name: value for name, value in params.items() if name not in ("MaxResults", "NextToken")}
        ours: Response = await there(unpaged)
        if ours[0] != 200:
            return ours
        base: Response = await here()
        if base[0] != 200:
            return base
        merged, extra = ElementTree.fromstring(ours[2]), ElementTree.fromstring(base[2])  # noqa: S314 - our own
        tags = merged.find(f"{{{NAMESPACE}}}tagSet")
        if tags is not None:
            # The base keeps volumes' tags; the EBS process has them only as they were at the start.
            kept = [item for item in tags if _is_snapshot(item)]
            tags[:] = kept + [item for item in extra.iter(f"{{{NAMESPACE}}}item") if not _is_snapshot(item)]
        ElementTree.register_namespace("", NAMESPACE)
        return ours[0], ours[1], ElementTree.tostring(merged, encoding="utf-8", xml_declaration=True)

    # -- volumes -----------------------------------------------------------------

    def _take_volume(self, answer: bytes) -> None:
        """Make a volume of the EBS process known to the base, so that it can be attached and deleted."""
        root = ElementTree.fromstring(answer)  # noqa: S314 - our own server's answer

        def text(name: str) -> str:
            return root.findtext(f"{{{NAMESPACE}}}{name}") or ""

        volume_id = text("volumeId")
        self._volumes[volume_id] = {
            "VolumeId": volume_id,
            "Size": int(text("size")),
            "AvailabilityZone": text("availabilityZone"),
            "State": "available",
            "VolumeType": text("volumeType"),
            "SnapshotId": text("snapshotId"),
            "Iops": int(text("iops") or "0"),
            "Throughput": int(text("throughput") or "0"),
            "Encrypted": text("encrypted") == "true",
            "KmsKeyId": text("kmsKeyId"),
            "CreateTime": text("createTime"),
            "Attachments": [],
            "MultiAttachEnabled": text("multiAttachEnabled") == "true",
        }
        tags = [
            {
                "Key": item.findtext(f"{{{NAMESPACE}}}key") or "",
                "Value": item.findtext(f"{{{NAMESPACE}}}value") or "",
            }
            for item in root.iterfind(f"{{{NAMESPACE}}}tagSet/{{{NAMESPACE}}}item")
        ]
        if tags:
            self._tags[volume_id] = tags

    def _with_keys(self, answer: Response) -> Response:
        """DescribeVolumes of the base leaves out the key of an encrypted volume."""
        if answer[0] != 200:
            return answer
        root = ElementTree.fromstring(answer[2])  # noqa: S314 - our own server's answer
        for item in root.iterfind(f"{{{NAMESPACE}}}volumeSet/{{{NAMESPACE}}}item"):
            record = self._volumes.get(item.findtext(f"{{{NAMESPACE}}}volumeId") or "")
            for member, name in (("kmsKeyId", "KmsKeyId"), ("throughput", "Throughput")):
                tag = f"{{{NAMESPACE}}}{member}"
                if record and record.get(name) and item.find(tag) is None:
                    ElementTree.SubElement(item, tag).text = str(record[name])
        ElementTree.register_namespace("", NAMESPACE)
        return answer[0], answer[1], ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)

    async def _hand_over_volumes(self, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
        """Make volumes of the base known to the EBS process before it takes their snapshots."""
        for record in list(self._volumes.values()):
            if not wanted(record):
                continue
            attachments = record.get("Attachments") or [{}]
            volume = {
                "volume_id": record["VolumeId"],
                "owner": self._account(),
                "region": self._region(),
                "size": int(record["Size"]),
                "zone": record.get("AvailabilityZone", ""),
                "instance_id": attachments[0].get("InstanceId"),
                "device": attachments[0].get("Device"),
                "tags": {tag["Key"]: tag.get("Value", "") for tag in self._tags.get(record["VolumeId"], [])},
            }
            status, _headers, content = await self._forward(
                "POST", "/_local/volumes", {}, json.dumps(volume).encode(), {}
            )
            if status != 200:
                raise RuntimeError(f"the EBS process refused {record['VolumeId']}: {content!r}")


def _is_snapshot(item: ElementTree.Element) -> bool:
    return item.findtext(f"{{{NAMESPACE}}}resourceType") == "snapshot"


def _flat(query: Mapping[str, Any], body: bytes) -> dict[str, str]:
    params = {name: value[-1] if isinstance(value, list) else str(value) for name, value in query.items()}
    params.update(parse_qsl(body.decode("utf-8", errors="replace"), keep_blank_values=True))
    return params


def _with_ids(params: Mapping[str, str], ids: list[str]) -> dict[str, str]:
    kept = {name: value for name, value in params.items() if not name.startswith("ResourceId.")}
    return kept | {f"ResourceId.{number}": each for number, each in enumerate(ids, 1)}


class SnapshotEvents:
    """``POST /_local/events`` puts one event on the default bus of its account and Region as AWS would,
    its id and time kept; ``GET`` shows the last thousand."""

    def __init__(self, host: Host) -> None:
        self._scope: Callable[[str, str], Any] = host.lookup(RESPONSES, "request_scope")
        self._log: Callable[[], list[dict[str, Any]]] = host.lookup(EVENTS, "_events_log_list")
        self._view: Callable[[dict[str, Any]], Any] = host.lookup(EVENTS, "_pattern_event_view")
        self._dispatch: Callable[[dict[str, Any], Any], None] = host.lookup(EVENTS, "_dispatch_event")
        self._archive: Callable[[dict[str, Any], Any], None] = host.lookup(EVENTS, "_archive_event")
        self._recent: deque[dict[str, Any]] = deque(maxlen=_KEPT_EVENTS)

    def __call__(self, request: ControlRequest) -> dict[str, Any]:
        if request.method == "GET":
            return {"events": list(self._recent)}
        if request.method != "POST":
            raise ControlError("GET shows events, POST puts one on the bus", status=405)
        event = request.json()
        missing = [name for name in ("id", "source", "detail-type", "account", "region") if name not in event]
        if missing:
            raise ControlError(f"the event lacks {', '.join(missing)}")
        self.publish(event)
        return {"id": event["id"]}

    def publish(self, event: dict[str, Any]) -> None:
        self._recent.append(event)
        record = {
            "EventId": event["id"],
            "Source": event["source"],
            "DetailType": event["detail-type"],
            "Detail": json.dumps(event.get("detail", {})),
            "EventBusName": "default",
            "Time": _epoch(event.get("time")),
            "Resources": event.get("resources", []),
            "Account": event["account"],
            "Region": event["region"],
        }
        with self._scope(event["account"], event["region"]):
            self._log().append(record)
            view = self._view(record)
            self._dispatch(record, view)
            self._archive(record, view)


def _epoch(time: str | None) -> int:
    if time is None:
        return int(datetime.now(UTC).timestamp())
    return int(datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp())

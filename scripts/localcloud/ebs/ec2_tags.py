"""CreateTags, DeleteTags, DescribeTags for snapshots and volumes.

Source: EC2 API reference. A call that also names other resources is split by the main server's plugin,
which hands over only the ids that are kept here.
"""

from __future__ import annotations

from collections.abc import Iterator

from localcloud.ebs import ec2_snapshots
from localcloud.ebs.ec2_query import Answer, Call, Filter, page, read_tags
from localcloud.ebs.errors import Ec2Error

MOST_TAGS = 50
_FILTERS = frozenset({"resource-id", "resource-type", "key", "value", "tag-key"})


def _tags_of(call: Call, resource_id: str) -> dict[str, str]:
    if resource_id.startswith("snap-"):
        return ec2_snapshots.find_own(call, resource_id).tags
    if resource_id.startswith("vol-"):
        volume = call.registry.volume(resource_id, account=call.account, region=call.region)
        if volume is None:
            raise Ec2Error("InvalidVolume.NotFound", f"The volume '{resource_id}' does not exist.")
        return volume.tags
    raise Ec2Error("InvalidID", f"The ID '{resource_id}' is not valid")


def create_tags(call: Call) -> Answer:
    new = read_tags(call.params)
    ids = call.params.texts("ResourceId")
    if not ids or not new:
        raise Ec2Error("MissingParameter", "The request must contain the parameters resourceIdSet and tagSet")
    with call.registry.lock:
        targets = [_tags_of(call, resource_id) for resource_id in ids]  # all are found before any is changed
        for tags in targets:
            if len(tags | new) > MOST_TAGS:
                raise Ec2Error("TagLimitExceeded", f"A resource can have at most {MOST_TAGS} tags.")
        for tags in targets:
            tags.update(new)
    return {"return": True}


def delete_tags(call: Call) -> Answer:
    """Without tags, all go; a tag with a value goes only where the value is equal."""
    with call.registry.lock:
        targets = [_tags_of(call, resource_id) for resource_id in call.params.texts("ResourceId")]
        wanted = [(tag.required("Key"), tag.text("Value")) for tag in call.params.structures("Tag")]
        for tags in targets:
            for key, value in wanted:
                if key in tags and value in (None, tags[key]):
                    del tags[key]
            if not wanted:
                tags.clear()
    return {"return": True}


def _resources(call: Call) -> Iterator[tuple[str, str, dict[str, str]]]:
    for snapshot in call.registry.in_account(call.account, call.region):
        yield snapshot.snapshot_id, "snapshot", snapshot.tags
    for volume in list(call.registry.volumes.values()):
        if (volume.owner, volume.region) == (call.account, call.region):
            yield volume.volume_id, "volume", volume.tags


def describe_tags(call: Call) -> Answer:
    filters = call.params.filters(_FILTERS)
    found = []
    with call.registry.lock:
        for resource_id, kind, tags in _resources(call):
            for key, value in tags.items():
                facts = {"resource-id": resource_id, "resource-type": kind, "key": key, "tag-key": key, "value": value}
                if all(_fits(each, facts) for each in filters):
                    found.append({"resourceId": resource_id, "resourceType": kind, "key": key, "value": value})
    found.sort(key=lambda item: (item["resourceId"], item["key"]))
    shown, following = page(call, found, least=5, most=1000)
    return {"tagSet": shown, "nextToken": following}


def _fits(each: Filter, facts: dict[str, str]) -> bool:
    if each.name.startswith("tag:"):
        return facts["key"] == each.name[4:] and each.fits([facts["value"]])
    return each.fits([facts[each.name]])

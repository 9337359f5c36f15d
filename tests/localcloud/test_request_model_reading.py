"""Requests that are not of their protocol, have members that nobody knows, or values of the wrong type."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.loaders import Loader
from localcloud.operations import Operation
from localcloud.request_model.allowances import ALLOWANCES
from localcloud.request_model.models import Models
from localcloud.request_model.patterns import UNREADABLE, PatternUnreadable, compiled
from localcloud.request_model.requests import WireRequest
from model_requests import on_the_wire, service_model

MODELS = Models()


def problems(service: str, operation: str, protocol: Any, **request: Any) -> list[tuple[str, str]]:
    """Kind and member of everything that is wrong."""
    wire = WireRequest(**{"path": "/", "query": {}, "headers": {}, "body": b"", **request})
    return [(p.kind, p.at) for p in MODELS.problems(service, Operation(name=operation, protocol=protocol), wire)]


def test_every_pattern_of_every_model_is_understood_or_known_not_to_be() -> None:
    loader = Loader()
    found: dict[str, str] = {}
    for service in loader.list_available_services("service-2"):
        for shape in loader.load_service_model(service, "service-2")["shapes"].values():
            if "pattern" in shape and shape["pattern"] not in found:
                try:
                    compiled(shape["pattern"])
                    found[shape["pattern"]] = ""
                except PatternUnreadable as error:
                    found[shape["pattern"]] = f"{service}: {error}"
    assert len(found) > 2_000
    assert {error for error in found.values() if error} == set()
    assert set(UNREADABLE) <= set(found), "patterns that no model has any more"


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        (r"[\p{L}\p{Z}\p{N}_.:/=+\-@]+", "Größe 1", True),
        (r"[\p{L}\p{Z}\p{N}_.:/=+\-@]+", "a!", False),
        (r"\w+", "ü", False),
        (r"\d+", "\u0661", False),
        (r"[\w-_]*", "a-_", True),
        (r"[a-z]+", "ab1", False),
        (r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\t]*", "a\U0001f600", True),
        (r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\t]*", "a\x00", False),
    ],
)
def test_patterns_mean_what_they_mean_in_java_and_fit_the_whole_value(pattern: str, text: str, fits: bool) -> None:
    matcher = compiled(pattern)
    assert matcher is not None
    assert (matcher.fullmatch(text) is not None) is fits


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"{", ("malformed", "")),
        (b"[]", ("type", "")),
        (b'{"VolumeSize": "1"}', ("type", "volumeSize")),
        (b'{"VolumeSize": 1.5}', ("type", "volumeSize")),
        (b'{"VolumeSize": true}', ("type", "volumeSize")),
        (b'{"VolumeSize": 9223372036854775808}', ("type", "volumeSize")),
        (b'{"VolumeSize": 1, "Encrypted": "true"}', ("type", "encrypted")),
        (b'{"VolumeSize": 1, "Tags": {}}', ("type", "tags")),
        (b'{"VolumeSize": 1, "Tags": [{"Key": 1}]}', ("type", "tags.1.member.key")),
        (b'{"VolumeSize": 1, "Colour": "blue"}', ("unknown", "colour")),
        (b'{"VolumeSize": 1, "Tags": [{"Name": "a"}]}', ("unknown", "tags.1.member.name")),
        (b'{"VolumeSize": null}', ("missing", "volumeSize")),
        (b"", ("missing", "volumeSize")),
    ],
)
def test_json_of_the_wrong_form_is_found(body: bytes, found: tuple[str, str]) -> None:
    assert problems("ebs", "StartSnapshot", "rest-json", path="/snapshots", body=body) == [found]


def test_null_is_the_same_as_nothing() -> None:
    body = b'{"VolumeSize": 1, "Description": null}'
    assert problems("ebs", "StartSnapshot", "rest-json", path="/snapshots", body=body) == []


def test_headers_labels_and_queries_of_the_wrong_type_or_unknown_are_found() -> None:
    found = problems(
        "ebs",
        "PutSnapshotBlock",
        "rest-json",
        path="/snapshots/snap-0%31/blocks/first",
        headers={
            "x-amz-data-length": "many",
            "x-amz-checksum": "AAAA",
            "x-amz-checksum-algorithm": "SHA256",
            "x-amz-progres": "5",
            "x-amz-date": "20260101T000000Z",
        },
        query={"colour": ["blue"], "X-Amz-Signature": ["0"]},
    )
    assert found == [
        ("type", "blockIndex"),
        ("type", "dataLength"),
        ("unknown", "x-amz-progres"),
        ("unknown", "colour"),
    ]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"VolumeId=vol-1&DryRun=perhaps", ("type", "dryRun")),
        (b"VolumeId=vol-1&Colour=blue", ("unknown", "colour")),
        (
            b"VolumeId=vol-1&TagSpecification.1.Label=a",
            ("unknown", "tagSpecifications.1.member.label"),
        ),
        (b"VolumeId.1=vol-1", ("unknown", "volumeId.1.member")),
        (b"DryRun=true", ("missing", "volumeId")),
    ],
)
def test_forms_of_ec2_of_the_wrong_form_are_found(body: bytes, found: tuple[str, str]) -> None:
    form = b"Action=CreateSnapshot&Version=2016-11-15&" + body
    assert found in problems("ec2", "CreateSnapshot", "ec2", body=form)


def test_forms_of_the_query_protocol_have_their_lists_and_maps_below_a_name() -> None:
    form = b"Action=CreateRole&Version=2010-05-08&RoleName=r&AssumeRolePolicyDocument=%7B%7D&Tags."
    assert problems("iam", "CreateRole", "query", body=form + b"member.1.Key=a&Tags.member.1.Value=") == []
    assert problems("iam", "CreateRole", "query", body=form + b"1.Key=a") == [("unknown", "tags.1.member")]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"<Tagging><TagSet>", ("malformed", "")),
        (b"<Tagging><TagSet><Tag><Key>a</Key></Tag></TagSet></Tagging>", ("missing", "tagging.tagSet.1.member.value")),
        (b"<Tagging><TagSet/><Colour/></Tagging>", ("unknown", "tagging.colour")),
        (b"<Tagging><TagSet><Label/></TagSet></Tagging>", ("unknown", "tagging.tagSet.label")),
        (b"", ("missing", "tagging")),
    ],
)
def test_xml_of_the_wrong_form_is_found(body: bytes, found: tuple[str, str]) -> None:
    assert problems("s3", "PutBucketTagging", "rest-xml", path="/b", query={"tagging": [""]}, body=body) == [found]


def test_a_stream_of_data_is_not_waited_for() -> None:
    found = MODELS.input_of("s3", "PutObject")
    assert found is not None
    assert found.streams
    assert problems("s3", "PutObject", "rest-xml", path="/b/k", body=None) == []


def test_a_package_in_json_is_measured_without_being_decoded() -> None:
    operation = service_model("kms").operation_model("Encrypt")
    for length, found in ((4096, []), (4097, [("length", "plaintext")])):
        asked, request = on_the_wire(operation, "json", {"KeyId": "k", "Plaintext": b"x" * length})
        assert [(p.kind, p.at) for p in MODELS.problems("kms", asked, request)] == found
    body = json.dumps({"KeyId": "k", "Plaintext": "no base64!"}).encode()
    assert problems("kms", "Encrypt", "json", body=body) == [("type", "plaintext")]


def test_every_allowance_is_of_a_member_that_the_model_still_forbids() -> None:
    for each in ALLOWANCES:
        names = [
            name
            for name in service_model(each.service).operation_names
            if each.operation in ("*", name)
            and each.member in (getattr(service_model(each.service).operation_model(name).input_shape, "members", {}))
        ]
        assert names, each

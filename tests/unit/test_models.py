from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from blockferry.core.errors import InvalidRequest
from blockferry.requests.copy import CopyRequest
from blockferry.requests.parts import parse, schema
from blockferry.requests.sync import SyncRequest

ROOT = Path(__file__).resolve().parents[2]
KEY = "arn:aws:kms:eu-west-1:111122223333:key/11111111-2222-3333-4444-555555555555"
ROLE = "arn:aws:iam::123456789012:role/blockferry-source"


def request(**changes: Any) -> dict[str, Any]:
    return {"snapshot_id": "snap-0123456789abcdef0", "targets": [{"region": "eu-west-1"}], **changes}


def refusal(data: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        parse(CopyRequest, data, what="copy")
    return str(caught.value)


def test_everything_but_the_snapshot_and_a_target_has_a_default() -> None:
    parsed = parse(CopyRequest, request(), what="copy")
    assert parsed.source.region is None
    assert parsed.options.max_concurrency is None
    assert parsed.options.blocks_per_range == 4096
    assert parsed.options.holes is None
    assert parsed.options.dry_run is False
    assert parsed.targets[0].tags == {}


def test_a_null_field_is_the_same_as_one_left_out() -> None:
    target = {"region": "eu-west-1", "role_arn": None, "kms_key_arn": None, "encrypted": None, "tags": None}
    full = request(source=None, options=None, targets=[target])
    assert parse(CopyRequest, full, what="copy") == parse(CopyRequest, request(), what="copy")


BAD = [
    (request(snapshot_id="vol-123"), "snapshot_id: 'vol-123' is not a snapshot id"),
    (request(snapshot_id="snap-XYZ"), "snapshot_id"),
    (request(snapshot_id=5), "snapshot_id"),
    ({"targets": [{"region": "eu-west-1"}]}, "snapshot_id: is required"),
    (request(targets=[]), "targets: name at least one target"),
    ({"snapshot_id": "snap-0123456789abcdef0"}, "targets: is required"),
    (request(targets=[{"region": "eu-west-1"}] * 2), "targets[1] is identical to targets[0]"),
    (request(targets=[{"region": "Europe"}]), "targets[0].region: 'Europe'"),
    (request(targets=[{}]), "targets[0].region: is required"),
    (request(targets=[{"region": "eu-west-1", "kms_key_arn": "alias/mine"}]), "It is an alias"),
    (
        request(targets=[{"region": "eu-west-1", "kms_key_arn": KEY.replace("key/1", "alias/x")}]),
        "aws kms describe-key",
    ),
    (request(targets=[{"region": "eu-west-2", "kms_key_arn": KEY}]), "names a key in eu-west-1"),
    (request(targets=[{"region": "eu-west-1", "kms_key_arn": KEY, "encrypted": False}]), "leave one of them out"),
    (request(targets=[{"region": "eu-west-1", "encrypted": "yes"}]), "targets[0].encrypted"),
    (request(targets=[{"region": "eu-west-1", "tags": {"aws:x": "1"}}]), "reserved prefix"),
    (request(targets=[{"region": "eu-west-1", "tags": {"blockferry:job-id": "1"}}]), "reserved prefix"),
    (request(targets=[{"region": "eu-west-1", "tags": {"x": "1" * 256}}]), "longer than EBS takes"),
    (request(targets=[{"region": "eu-west-1", "description": "d" * 256}]), "targets[0].description"),
    (request(targets=[{"region": "eu-west-1", "role_arn": "role"}]), "targets[0].role_arn"),
    (request(source={"external_id": "x1"}), "without the role_arn"),
    (request(source={"regoin": "us-east-1"}), "source.regoin: is not a known key"),
    (request(surce={}), "surce: is not a known key; known: lineage, options, snapshot_id, source, targets"),
    (request(options={"holes": "keep"}), "options.holes"),
    (request(options={"max_concurrency": 0}), "options.max_concurrency"),
    (request(options={"max_concurrency": "10"}), "options.max_concurrency"),
    (request(options={"blocks_per_range": 65_537}), "options.blocks_per_range"),
    (
        request(options={"holes": "skip_zero"}, targets=[{"region": "eu-west-1", "encrypted": True}]),
        "skip_zero is not safe for targets[0]",
    ),
    ([], "input"),
    ("snap-0123456789abcdef0", "input"),
]


@pytest.mark.parametrize(("data", "expected"), BAD, ids=[expected for _, expected in BAD])
def test_bad_input_is_refused_with_the_path_of_its_field(data: Any, expected: str) -> None:
    text = refusal(data)
    assert expected in text
    assert "nothing was started" in text


def test_every_violation_is_reported_at_once() -> None:
    text = refusal(request(snapshot_id="x", targets=[{"region": "?", "kms": 1}], extra=1))
    lines = text.splitlines()[1:]
    assert [line.split(":")[0] for line in lines] == [
        "- snapshot_id",
        "- targets[0].region",
        "- targets[0].kms",
        "- extra",
    ]


def test_what_has_another_kind_is_told_in_the_words_of_json() -> None:
    data = {
        "snapshot_id": 5,
        "targets": [3, {"region": "eu-west-1", "tags": []}],
        "source": "us-east-1",
        "options": {"max_concurrency": "a", "dry_run": "x", "holes": "no", "blocks_per_range": 0},
    }
    with pytest.raises(InvalidRequest) as refused:
        parse(CopyRequest, data, what="copy")
    assert str(refused.value).splitlines()[1:] == [
        "- snapshot_id: must be text (got 5)",
        "- source: must be an object (got 'us-east-1')",
        "- targets[0]: must be an object (got 3)",
        "- targets[1].tags: must be an object (got [])",
        "- options.max_concurrency: must be a whole number (got 'a')",
        "- options.blocks_per_range: must be greater than or equal to 1 (got 0)",
        "- options.holes: must be 'preserve', 'zero_fill' or 'skip_zero' (got 'no')",
        "- options.dry_run: must be true or false (got 'x')",
    ]
    for whole in (5, [], "text"):
        with pytest.raises(InvalidRequest, match=r"- input: must be an object"):
            parse(CopyRequest, whole, what="copy")


def test_the_same_region_twice_is_fine_for_two_keys_or_two_accounts() -> None:
    other = KEY.replace("1111-", "9999-", 1)
    targets = [
        {"region": "eu-west-1", "kms_key_arn": KEY},
        {"region": "eu-west-1", "kms_key_arn": other},
        {"region": "eu-west-1", "role_arn": ROLE, "external_id": "abc"},
    ]
    assert len(parse(CopyRequest, request(targets=targets), what="copy").targets) == 3


def test_the_published_schema_is_the_one_of_the_model() -> None:
    published = json.loads((ROOT / "statemachines" / "schemas" / "copy.schema.json").read_text())
    assert published == json.loads(json.dumps(schema(CopyRequest, title="Input of the state machine copy")))


def test_the_published_example_is_valid() -> None:
    example = json.loads((ROOT / "statemachines" / "examples" / "copy.json").read_text())
    parse(CopyRequest, example, what="copy")


def test_what_concerns_several_members_of_an_input_names_them_itself() -> None:
    twice = {"snapshot_id": "snap-0123456789abcdef0", "base_snapshot_id": "snap-0123456789abcdef0"}
    targets = [{"region": "eu-west-1", "parent_snapshot_id": "snap-0123456789abcdef1"}]
    with pytest.raises(InvalidRequest, match=r"(?m)^- base_snapshot_id: \S+ is named twice"):
        parse(SyncRequest, {**twice, "targets": targets}, what="sync")

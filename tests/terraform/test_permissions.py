"""What a function may call is declared beside its code; here the declarations themselves are held against facts.

Terraform's side, that exactly the declared actions are granted, is terraform/modules/region/tests.
"""

from __future__ import annotations

import json
from pathlib import Path

import botocore.session
import pytest
from tools.environment import repository_root

FUNCTIONS = sorted((repository_root() / "functions").glob("*/permissions.json"))

# Actions that bear another name than the API operation that needs them, or belong to several operations
# (Service Authorization Reference, S3, KMS and Step Functions).
NOT_AN_OPERATION = {
    "s3:ListBucket": ("s3", "ListObjectsV2"),
    "s3:ListBucketMultipartUploads": ("s3", "ListMultipartUploads"),
    "s3:ListMultipartUploadParts": ("s3", "ListParts"),
    "kms:ReEncryptFrom": ("kms", "ReEncrypt"),
    "kms:ReEncryptTo": ("kms", "ReEncrypt"),
}
SERVICES = {"states": "stepfunctions"}


def operations(service: str) -> list[str]:
    return list(botocore.session.get_session().get_service_model(service).operation_names)


def declared(file: Path) -> dict[str, str]:
    actions = json.loads(file.read_text())["actions"]
    assert isinstance(actions, dict)
    return actions


@pytest.mark.parametrize("file", FUNCTIONS, ids=lambda file: file.parent.name)
def test_every_declared_action_is_an_operation_of_aws(file: Path) -> None:
    for action in declared(file):
        prefix, name = action.split(":")
        service, operation = NOT_AN_OPERATION.get(action, (SERVICES.get(prefix, prefix), name))
        assert operation in operations(service), action


@pytest.mark.parametrize("file", FUNCTIONS, ids=lambda file: file.parent.name)
def test_every_declared_action_says_why(file: Path) -> None:
    assert all(reason.strip() for reason in declared(file).values())


@pytest.mark.parametrize("file", FUNCTIONS, ids=lambda file: file.parent.name)
def test_actions_are_declared_in_order_and_once(file: Path) -> None:
    names = [name for name, _ in json.loads(file.read_text(), object_pairs_hook=list)[1][1]]
    assert names == sorted(set(names))

"""Every constraint of every operation of the services that are called is kept, in every protocol that they have."""

from __future__ import annotations

import pytest
from localcloud.request_model.models import Models
from model_requests import allowed, breaches, on_the_wire, protocols, service_model

CALLED = (
    "cloudwatch",
    "ebs",
    "events",
    "iam",
    "kms",
    "lambda",
    "logs",
    "resourcegroupstaggingapi",
    "s3",
    "scheduler",
    "service-quotas",
    "sns",
    "sqs",
    "ssm",
    "stepfunctions",
    "sts",
    "xray",
)
"""Services that this software, its Terraform or its tests send requests to, without EC2."""

OLD_FORMS = {("sqs", "query")}
"""Forms that the model does not describe: SQS's names of flattened members stand elsewhere."""

MODELS = Models()


@pytest.mark.parametrize("service", [*CALLED, "ec2"])
def test_what_the_model_allows_is_not_refused(service: str) -> None:
    model = service_model(service)
    for protocol in protocols(model):
        if (service, protocol) in OLD_FORMS:
            continue
        for name in model.operation_names:
            operation = model.operation_model(name)
            asked, request = on_the_wire(operation, protocol, allowed(operation.input_shape))
            found = [each for each in MODELS.problems(service, asked, request) if each.kind != "pattern"]
            assert not found, f"{service} {name} {protocol}: {found}"


@pytest.mark.parametrize("service", CALLED)
def test_every_broken_constraint_is_found(service: str) -> None:
    model = service_model(service)
    protocol = protocols(model)[0]
    tried = 0
    for name in model.operation_names:
        operation = model.operation_model(name)
        if operation.deprecated:
            continue  # S3's old notifications name one element for two members
        for breach in breaches(operation):
            asked, request = on_the_wire(operation, protocol, breach.parameters)
            found = MODELS.input_of(service, name)
            assert found is not None
            problems = found.problems(request, asked.protocol)
            assert any(each.kind == breach.kind and each.path == breach.path for each in problems), (
                f"{service} {name} {protocol}: {breach} is not found, but {[str(each) for each in problems]}"
            )
            tried += 1
    assert tried

"""The main server refuses, as the service would, whatever breaks the model of an operation that is called."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from model_requests import breaches, service_model
from server_probe import RunningServer, running_server

CALLED = {
    "cloudwatch": "DeleteAlarms DescribeAlarms GetMetricStatistics ListTagsForResource PutMetricAlarm PutMetricData",
    "ec2": "CopySnapshot CreateSnapshot CreateTags CreateVolume DeleteSnapshot DescribeRegions DescribeSnapshots "
    "GetEbsEncryptionByDefault ModifySnapshotAttribute",
    "events": "DeleteRule DescribeRule ListTagsForResource PutEvents PutRule PutTargets RemoveTargets",
    "iam": "AttachRolePolicy CreatePolicy CreateRole DeleteRole DeleteRolePolicy GetPolicy GetPolicyVersion GetRole "
    "GetRolePolicy ListAttachedRolePolicies ListRolePolicies PutRolePolicy",
    "kms": "CreateAlias CreateGrant CreateKey DescribeKey GenerateDataKeyWithoutPlaintext PutKeyPolicy",
    "lambda": "AddPermission CreateFunction GetAccountSettings GetFunction GetFunctionCodeSigningConfig "
    "GetLayerVersion Invoke ListVersionsByFunction PublishLayerVersion PutFunctionConcurrency",
    "logs": "CreateLogGroup CreateLogStream DescribeLogGroups FilterLogEvents GetLogEvents ListTagsForResource "
    "PutMetricFilter PutRetentionPolicy",
    "s3": "CreateBucket DeleteObject DeleteObjects GetBucketLocation GetObject HeadObject ListObjectsV2 "
    "PutBucketEncryption PutBucketLifecycleConfiguration PutBucketOwnershipControls PutBucketTagging "
    "PutBucketVersioning PutObject PutPublicAccessBlock",
    "scheduler": "CreateSchedule CreateScheduleGroup GetSchedule GetScheduleGroup ListTagsForResource UpdateSchedule",
    "sns": "CreateTopic GetTopicAttributes Publish Subscribe",
    "sqs": "CreateQueue GetQueueAttributes ReceiveMessage SendMessage",
    "ssm": "GetParameter PutParameter",
    "stepfunctions": "CreateStateMachine DescribeExecution DescribeMapRun DescribeStateMachine ListExecutions "
    "ListMapRuns ListStateMachineVersions ListTagsForResource RedriveExecution StartExecution "
    "ValidateStateMachineDefinition",
    "sts": "AssumeRole GetCallerIdentity",
}
"""Operations that this software, its Terraform and its tests call; EBS direct has a server and a suite of its own."""

CODES = {
    "IllegalArgumentException",
    "InvalidArgument",
    "InvalidParameter",
    "InvalidParameterException",
    "InvalidParameterValue",
    "InvalidRequest",
    "MalformedXML",
    "MissingParameter",
    "ValidationError",
    "ValidationException",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running


def lax_client(server: RunningServer, service: str) -> Any:
    """A client that sends whatever it is given."""
    config = Config(parameter_validation=False, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
    return boto3.client(
        service,
        endpoint_url=server.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="111122223333",
        aws_secret_access_key=server.keys.secret,
        config=config,
    )


def refusal(client: Any, operation: str, **parameters: Any) -> tuple[int, str, str]:
    """Status, code and message."""
    with pytest.raises(ClientError) as caught:
        client._make_api_call(operation, parameters)
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer["Error"].get("Message", "")


@pytest.mark.parametrize("service", CALLED)
def test_every_broken_constraint_of_a_called_operation_is_refused(server: RunningServer, service: str) -> None:
    client, model = lax_client(server, service), service_model(service)
    refused = 0
    for name in CALLED[service].split():
        operation = model.operation_model(name)
        for breach in breaches(operation):
            try:
                status, code, message = refusal(client, name, **breach.parameters)
            except BotoCoreError:
                continue  # botocore itself does not send it
            where = f"{service} {name} {breach}: {status} {code}: {message}"
            assert status == 400, where
            # The answer to HEAD has no body, so the SDK makes a code of its status.
            assert code in (CODES if operation.http["method"] != "HEAD" else {"400"}), where
            refused += 1
    assert refused


@pytest.mark.parametrize(
    ("service", "operation", "parameters", "refused"),
    [
        (
            "stepfunctions",
            "StartExecution",
            {"stateMachineArn": "arn:aws:states:us-east-1:111122223333:stateMachine:m", "name": ""},
            (
                "ValidationException",
                "1 validation error detected: Value '' at 'name' failed to satisfy constraint: "
                "Member must have length greater than or equal to 1",
            ),
        ),
        (
            "logs",
            "CreateLogGroup",
            {"logGroupName": "a b"},
            (
                "InvalidParameterException",
                "1 validation error detected: Value 'a b' at 'logGroupName' failed to satisfy constraint: "
                r"Member must satisfy regular expression pattern: [\.\-_/#A-Za-z0-9]+",
            ),
        ),
        (
            "iam",
            "CreateRole",
            {
                "RoleName": "r",
                "AssumeRolePolicyDocument": "{}",
                "Tags": [{"Key": "", "Value": ""}],
                "MaxSessionDuration": 1,
            },
            ("ValidationError", "3 validation errors detected: "),
        ),
        ("lambda", "GetFunction", {"FunctionName": "a b"}, ("ValidationException", "'functionName'")),
        ("ec2", "CreateSnapshot", {}, ("MissingParameter", "The request must contain the parameter VolumeId")),
        (
            "ec2",
            "CreateVolume",
            {"AvailabilityZone": "a", "VolumeType": "gp9"},
            ("InvalidParameterValue", "VolumeType"),
        ),
        (
            "s3",
            "PutBucketVersioning",
            {"Bucket": "b-1", "VersioningConfiguration": {"Status": "On"}},
            ("MalformedXML", "On"),
        ),
        ("s3", "PutObject", {"Bucket": "b-1", "Key": "k", "StorageClass": "WARM"}, ("InvalidArgument", "WARM")),
        ("sqs", "SendMessage", {"QueueUrl": "http://q"}, ("MissingParameter", "MessageBody")),
        ("scheduler", "CreateScheduleGroup", {"Name": "a b"}, ("ValidationException", "'name'")),
    ],
)
def test_a_refusal_names_member_and_constraint_with_the_services_code(
    server: RunningServer, service: str, operation: str, parameters: dict[str, Any], refused: tuple[str, str]
) -> None:
    status, code, message = refusal(lax_client(server, service), operation, **parameters)
    assert (status, code) == (400, refused[0])
    assert refused[1] in message


def test_what_is_refused_is_not_done(server: RunningServer) -> None:
    s3 = lax_client(server, "s3")
    s3.create_bucket(Bucket="kept-as-it-was")
    assert refusal(s3, "PutObject", Bucket="kept-as-it-was", Key="k", Body=b"x", ACL="everyone")[1] == "InvalidArgument"
    assert "Contents" not in s3.list_objects_v2(Bucket="kept-as-it-was")


def test_a_body_that_is_not_of_the_protocol_is_refused(server: RunningServer) -> None:
    s3 = lax_client(server, "s3")
    s3.create_bucket(Bucket="malformed")

    def cut(request: Any, **_: Any) -> None:
        request.data = request.data[:-3]

    s3.meta.events.register("before-sign.s3.PutBucketTagging", cut)
    with pytest.raises(ClientError, match="MalformedXML"):
        s3.put_bucket_tagging(Bucket="malformed", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})


def test_requests_of_no_known_operation_are_left_to_the_base(server: RunningServer) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{server.endpoint_url}/no/such/thing", timeout=10)
    with caught.value:
        assert b"validation error" not in caught.value.read()

"""AWS identities: one session per role, one EBS direct client per side of a transfer.

Cross-account is a role per side, never a stored key. Cross-region is a client of that region: Step Functions' own
integrations cannot leave their region, a function can.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
import botocore.loaders
import botocore.session
from botocore.config import Config
from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
from botocore.httpsession import get_cert_path

from blockferry.aws.ebs.client import EbsDirect
from blockferry.aws.ebs.signing import Credentials
from blockferry.aws.ebs.transport import SignedHttp
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import InvalidRequest, NoCredentials
from blockferry.core.retry import Clock, Deadline, RetryPolicy

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_stepfunctions import SFNClient

# Control-plane calls are few; botocore's own retries serve them. Block traffic does not pass through here.
_CONFIG = Config(
    connect_timeout=5,
    read_timeout=60,
    retries={"mode": "standard", "total_max_attempts": 8},
    max_pool_connections=32,
)


# EC2 answers in a second or two. A region that does not must leave time for the targets of others.
_DESCRIBING = Config(
    connect_timeout=5,
    read_timeout=30,
    retries={"mode": "standard", "total_max_attempts": 6},
    max_pool_connections=32,
)


# One attempt each: whoever reads whole ranges has its own retry budget and a deadline to keep.
_READING = Config(
    connect_timeout=5, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 1}, max_pool_connections=32
)


# What makes something has no token by which EC2 would know a repetition.
_ONCE = Config(
    connect_timeout=5, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 1}, max_pool_connections=32
)


# Little is lost without the answer, so little time is spent on it.
_LOOKING = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 4})


@cache
def _models(data_path: str | None) -> botocore.loaders.Loader:
    return botocore.loaders.create_loader(data_path)


def new_session() -> botocore.session.Session:
    """A session that shares the service models with all others of the process.

    Reading EC2's takes a quarter of a second of CPU, and every session would do it again: for each job that a warm
    function serves, and for each role.
    """
    session = botocore.session.Session()
    session.register_component("data_loader", _models(session.get_config_variable("data_path")))
    return session


def configured_region(session: boto3.Session) -> str | None:
    """The region of the environment or of the profile, if there is one.

    boto3 looks at ``AWS_DEFAULT_REGION`` only; ``AWS_REGION`` is what Lambda sets and what other AWS tools read first.
    """
    return os.environ.get("AWS_REGION") or session.region_name or None


@dataclass(frozen=True)
class Identity:
    """Whose permissions to use, and in which region. ``role_arn`` ``None`` means the process's own identity."""

    region: str
    role_arn: str | None = None
    external_id: str | None = None


@dataclass
class Aws:
    """Makes clients. One per invocation or process; threads may share it, and its clients.

    ``describing`` is how clients of EC2 wait and try again, ``transport`` carries the requests to EBS.
    """

    job_id: str = "blockferry"
    base: boto3.Session = field(default_factory=lambda: boto3.Session(botocore_session=new_session()))
    describing: Config = _DESCRIBING
    transport: type[SignedHttp] = SignedHttp
    # Neither sessions nor the making of a client are safe between threads; clients are.
    _making: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _sessions: dict[tuple[str, str | None], boto3.Session] = field(default_factory=dict)
    _endpoints: dict[str, str] = field(default_factory=dict)
    _ec2: dict[Identity, EC2Client] = field(default_factory=dict)
    _ec2_once: dict[Identity, EC2Client] = field(default_factory=dict)
    _transports: dict[tuple[Identity, int], SignedHttp] = field(default_factory=dict)

    @property
    def own_region(self) -> str:
        """The region this code runs in."""
        region = configured_region(self.base)
        if not region:
            raise InvalidRequest("no region is configured: set AWS_REGION or name source.region in the input")
        return region

    def ec2(self, identity: Identity) -> EC2Client:
        # Kept: EC2's model is by far the largest, and making a client of it takes a third of a second.
        with self._making:
            if identity not in self._ec2:
                session = self._session(identity)
                self._ec2[identity] = session.client("ec2", region_name=identity.region, config=self.describing)
            return self._ec2[identity]

    def ec2_once(self, identity: Identity) -> EC2Client:
        """A client that sends each request once: for those that make something each time they arrive."""
        with self._making:
            if identity not in self._ec2_once:
                session = self._session(identity)
                self._ec2_once[identity] = session.client("ec2", region_name=identity.region, config=_ONCE)
            return self._ec2_once[identity]

    def s3(self, region: str) -> S3Client:
        return self.base.client("s3", region_name=region, config=_CONFIG)

    def image_s3(self, identity: Identity) -> S3Client:
        """A client for reading images, which leaves repeating to its caller."""
        with self._making:
            return self._session(identity).client("s3", region_name=identity.region, config=_READING)

    def kms(self, identity: Identity) -> KMSClient:
        return self._session(identity).client("kms", region_name=identity.region, config=_CONFIG)

    def functions(self, region: str) -> LambdaClient:
        """A client for looking at the own account's functions, for whoever can go on without an answer."""
        return self.base.client("lambda", region_name=region, config=_LOOKING)

    def step_functions(self, region: str) -> SFNClient:
        return self.base.client("stepfunctions", region_name=region, config=_CONFIG)

    def ebs(
        self,
        identity: Identity,
        *,
        counts: RequestCounts,
        policy: RetryPolicy | None = None,
        clock: Clock | None = None,
        deadline: Deadline | None = None,
        connections: int = 32,
    ) -> EbsDirect:
        """An EBS direct client for this identity; all of an identity's share ``connections`` kept-alive ones."""
        transport = self._transport(identity, connections)
        return EbsDirect(
            transport, region=identity.region, counts=counts, policy=policy, clock=clock, deadline=deadline
        )

    def _transport(self, identity: Identity, connections: int) -> SignedHttp:
        key = (identity, connections)
        with self._making:
            if key not in self._transports:
                session = self._session(identity)
                self._transports[key] = self.transport(
                    endpoint_url=self._ebs_endpoint(identity.region),
                    region=identity.region,
                    credentials=_credentials_of(session),
                    trust_store=session._session.get_config_variable("ca_bundle") or get_cert_path(True),
                    connections=connections,
                )
            return self._transports[key]

    def _ebs_endpoint(self, region: str) -> str:
        """The endpoint as botocore resolves it: partition, FIPS, dual stack, ``AWS_ENDPOINT_URL_EBS``.

        A client is dear, so each region's is resolved once.
        """
        if region not in self._endpoints:
            client = self.base.client("ebs", region_name=region, config=_CONFIG)
            self._endpoints[region] = client.meta.endpoint_url
        return self._endpoints[region]

    def _session(self, identity: Identity) -> boto3.Session:
        if identity.role_arn is None:
            return self.base
        key = (identity.role_arn, identity.external_id)
        if key not in self._sessions:
            self._sessions[key] = self._assume(identity.role_arn, identity.external_id)
        return self._sessions[key]

    def _assume(self, role_arn: str, external_id: str | None) -> boto3.Session:
        """A session of the role that renews itself: a range may outlast an hour-long session."""
        base = self.base._session
        arguments = {"RoleSessionName": _session_name(self.job_id)}
        if external_id is not None:
            arguments["ExternalId"] = external_id

        def token_service(_name: str, **options: Any) -> Any:
            # The role is assumed with the first request, in whatever thread that is.
            with self._making:
                return base.create_client("sts", **options)

        fetcher = AssumeRoleCredentialFetcher(
            client_creator=token_service,
            source_credentials=base.get_credentials(),
            role_arn=role_arn,
            extra_args=arguments,
        )
        assumed: Any = new_session()
        assumed._credentials = DeferredRefreshableCredentials(
            refresh_using=fetcher.fetch_credentials, method="assume-role"
        )
        return boto3.Session(botocore_session=assumed)


def _session_name(job_id: str) -> str:
    """A role session name: shows up in the other account's CloudTrail. 2 to 64 of ``[\\w+=,.@-]``, ASCII only, which
    the names of executions need not be."""
    allowed = "".join(c if (c.isascii() and c.isalnum()) or c in "+=,.@_-" else "-" for c in f"blockferry-{job_id}")
    return allowed[:64]


def _credentials_of(session: boto3.Session) -> Callable[[], Credentials]:
    found = session.get_credentials()
    if found is None:
        raise NoCredentials("no AWS credentials were found: configure a profile, a role or environment variables")

    def current() -> Credentials:
        # Frozen on every use: refreshable credentials renew themselves here.
        frozen = found.get_frozen_credentials()
        return Credentials(str(frozen.access_key), str(frozen.secret_key), frozen.token)

    return current

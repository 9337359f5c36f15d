"""The parts that requests are made of, how they are parsed, and how violations are told.

Input keys are a contract (see the schemas beside the state machines). Every violation is reported with the path
of its field, all of them at once, before anything is started.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Protocol, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from blockferry.core.errors import InvalidRequest
from blockferry.core.holes import HolePolicy
from blockferry.core.quotas import MAX_DESCRIPTION, MAX_TAG_KEY, MAX_TAG_VALUE, MAX_TAGS

SNAPSHOT_ID = r"snap-[0-9a-f]{8,17}"
REGION = r"[a-z]{2,4}(-[a-z]+)+-[0-9]+"
ROLE_ARN = r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]{1,576}"
EXTERNAL_ID = r"[a-zA-Z0-9_+=,.@:/-]{2,1224}"
LINEAGE = r"[A-Za-z0-9._:/=+@-]{1,128}"
KEY_ARN = r"arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+"

CONTROL_PREFIX = "blockferry:"
"""Prefix of the tags by which jobs find their own snapshots; inputs may not use it."""


def _pattern(pattern: str, expected: str) -> tuple[AfterValidator, WithJsonSchema]:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            hint = ""
            if ":kms:" in pattern and "alias/" in value:
                hint = (
                    " It is an alias, and only the ARN of the key itself is taken; find it with: aws kms "
                    f"describe-key --key-id {value} --query KeyMetadata.Arn"
                )
            raise ValueError(f"{value!r} is not {expected}.{hint}")
        return value

    return AfterValidator(check), WithJsonSchema({"type": "string", "pattern": f"^{pattern}$"})


SnapshotId = Annotated[str, *_pattern(SNAPSHOT_ID, "a snapshot id (snap- and 8 to 17 hexadecimal digits)")]
Region = Annotated[str, *_pattern(REGION, "the name of a region (such as eu-west-1)")]
RoleArn = Annotated[str, *_pattern(ROLE_ARN, "the ARN of an IAM role (arn:aws:iam::<account>:role/<name>)")]
ExternalId = Annotated[str, *_pattern(EXTERNAL_ID, "an external id (2 to 1224 letters, digits and _+=,.@:/-)")]
Lineage = Annotated[str, StringConstraints(pattern=f"^{LINEAGE}$")]
KeyArn = Annotated[str, *_pattern(KEY_ARN, "the ARN of a KMS key (arn:aws:kms:<region>:<account>:key/<id>)")]


class Model(BaseModel):
    """A part of a request: unknown keys are refused, and ``null`` is the same as leaving a key out."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_left_out(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        optional = {name for name, field in cls.model_fields.items() if not field.is_required()}
        return {key: value for key, value in data.items() if value is not None or key not in optional}


class Party(Model):
    """A side of a transfer: where it is and as whom to act there."""

    role_arn: RoleArn | None = Field(None, description="Role to assume; without one the function's own.")
    external_id: ExternalId | None = Field(None, description="External id that the role's trust policy asks for.")

    @model_validator(mode="after")
    def _external_id_needs_role(self) -> Self:
        if self.external_id is not None and self.role_arn is None:
            raise ValueError("external_id is given without the role_arn that it belongs to")
        return self


class Source(Party):
    """Where the snapshot is read."""

    region: Region | None = Field(None, description="Defaults to the region of the state machine.")


class Target(Party):
    """A snapshot to make."""

    place_is: ClassVar[str] = "region, role and key"

    region: Region
    kms_key_arn: KeyArn | None = Field(None, description="Key of the target; its ARN, not an alias.")
    encrypted: bool | None = Field(
        None, description="Without it the target is encrypted if its source or its account's default is."
    )
    description: str | None = Field(
        None, max_length=MAX_DESCRIPTION, description="Defaults to the source's description."
    )
    tags: dict[str, str] = Field(default_factory=dict, description="Added to the source's tags, and win.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kms_key_arn is not None:
            if self.encrypted is False:
                raise ValueError("kms_key_arn is given, but encrypted is false: leave one of them out")
            key_region = self.kms_key_arn.split(":")[3]
            if key_region != self.region:
                raise ValueError(
                    f"kms_key_arn names a key in {key_region}, the target is in {self.region}: name a key there"
                )
        check_tags(self.tags)
        return self

    @property
    def place(self) -> tuple[str | None, ...]:
        """The members in which two targets must differ; description and tags are none of them."""
        return (self.region, self.role_arn, self.kms_key_arn, str(self.encrypted))


class Placed(Protocol):
    """A target that must not be named twice: ``place`` is what tells it from others, ``place_is`` that in words."""

    place_is: ClassVar[str]

    @property
    def place(self) -> tuple[str | None, ...]: ...


def refuse_twins(targets: Sequence[Placed]) -> None:
    """Raise ``ValueError`` for a target that is the same as another one."""
    seen: dict[tuple[str | None, ...], int] = {}
    for number, target in enumerate(targets):
        if target.place in seen:
            raise ValueError(
                f"targets[{number}] is identical to targets[{seen[target.place]}] ({target.place_is}): "
                "one copy would be made twice; remove it"
            )
        seen[target.place] = number


def check_tags(tags: Mapping[str, str]) -> None:
    """Raise ``ValueError`` for tags that EBS refuses or that jobs use themselves."""
    for key, value in tags.items():
        if key.lower().startswith(("aws:", CONTROL_PREFIX)):
            raise ValueError(f"tags: {key!r} has a reserved prefix (aws: or {CONTROL_PREFIX})")
        if not key or not taken_at_the_start(key, value):
            raise ValueError(
                f"tags: {key!r} is longer than EBS takes ({MAX_TAG_KEY} for a key, {MAX_TAG_VALUE} for a value)"
            )
    if len(tags) > MAX_TAGS:
        raise ValueError(f"tags: {len(tags)} tags, EC2 keeps at most {MAX_TAGS}")


def taken_at_the_start(key: str, value: str) -> bool:
    """Whether StartSnapshot takes the tag. CreateTags takes one character more of each, so that snapshots can have tags
    that must be added to their copies later (botocore's ebs model; EC2 user guide, "Tag restrictions")."""
    return len(key) <= MAX_TAG_KEY and len(value) <= MAX_TAG_VALUE


class TransferOptions(Model):
    """How a transfer is carried out."""

    max_concurrency: int | None = Field(
        None,
        ge=1,
        le=1_000,
        description="Workers at the same time. Without it as many as EBS has requests for and Lambda has room for.",
    )
    blocks_per_range: int = Field(
        4_096,
        ge=1,
        le=65_536,
        description="Blocks of 512 KiB per task; raised where a volume gave over 10,000.",
    )
    holes: Annotated[HolePolicy, Strict(False)] | None = Field(
        None,
        description="preserve: what the source holds; zero_fill: every block; skip_zero: no blocks of zeros. Left out, "
        "no zeros that somebody wrote become a hole that does not read as zeros; where that cannot be known, the job "
        "asks.",
    )
    dry_run: bool = Field(False, description="Report requests, bytes and cost; start and write nothing.")


LINEAGE_FIELD = Field(
    None,
    description="Name of the chain of copies that this one belongs to, for sync with follow. Defaults to the id of the "
    "source's volume; where it has none of its own, to the source's tag blockferry:lineage.",
)
"""The field ``lineage`` of an input, which names a new chain, or one that goes on."""


def refuse_unsafe_holes(targets: Sequence[Target], options: TransferOptions) -> None:
    """Raise ``ValueError`` where blocks of zeros would be left out of what is encrypted for certain."""
    for number, target in enumerate(targets):
        if options.holes is HolePolicy.SKIP_ZERO and (target.encrypted or target.kms_key_arn):
            raise ValueError(
                f"options.holes: skip_zero is not safe for targets[{number}], which is encrypted: a block that "
                "is absent there is not the same as a block of zeros; use preserve"
            )


M = TypeVar("M", bound=BaseModel)


def parse(model: type[M], data: object, *, what: str) -> M:
    """The request in ``data``.

    Raises ``InvalidRequest`` with one line per violation, each naming its field; ``what`` is the operation.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = error.errors()
        # A list whose items are all refused also counts as too short; only the items' problems help.
        within = {e["loc"][:1] for e in problems if len(e["loc"]) > 1}
        lines = [
            f"- {_field(e)}{_message(e, model)}"
            for e in problems
            if not (e["type"] == "too_short" and e["loc"] in within)
        ]
        raise InvalidRequest(
            f"The input of {what} cannot be used, nothing was started:\n" + "\n".join(lines)
        ) from error


def _field(error: Any) -> str:
    """What the violation is of, with a colon. What concerns several members of an input names them itself."""
    return "" if not error["loc"] and error["type"] == "value_error" else f"{_path(error['loc'])}: "


def _path(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        if isinstance(part, str) and part.startswith("("):
            # The name of a kind of target, which stands in no input.
            continue
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text or "input"


_MUST_BE = {
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type", "mapping_type"), "an object"),
    **dict.fromkeys(("list_type", "tuple_type"), "a list"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "string_type": "text",
}
"""What a value has to be, in the words of JSON, by the validation library's name for its error."""


def _message(error: Any, model: type[BaseModel]) -> str:
    kind = error["type"]
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        known = sorted(model.model_fields) if len(error["loc"]) == 1 else []
        return "is not a known key" + (f"; known: {', '.join(known)}" if known else "")
    if kind == "too_short" and error["loc"] == ("targets",):
        return "name at least one target; a copy without a target would do nothing"
    if kind in _MUST_BE:
        return f"must be {_MUST_BE[kind]} (got {error['input']!r:.80})"
    message = str(error["msg"]).removeprefix("Value error, ").replace("Input should be ", "must be ", 1)
    return message if len(message) > 400 or kind == "value_error" else f"{message} (got {error['input']!r:.80})"


def schema(model: type[BaseModel], *, title: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a request model as it is published."""
    body = model.model_json_schema(mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **body,
        "title": title,
    }

"""Static checks of the Map state's own fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from localcloud.states.check_expressions import ExpressionChecker, Scope
from localcloud.states.findings import Findings
from localcloud.states.items import DELIMITERS
from localcloud.states.limits import MAX_ITEMS, MAX_PAYLOAD_BYTES

_GET: Final = "arn:aws:states:::s3:getObject"
_LIST: Final = "arn:aws:states:::s3:listObjectsV2"
_PUT: Final = "arn:aws:states:::s3:putObject"
_DISTRIBUTED_ONLY: Final = [
    "ItemReader",
    "ItemBatcher",
    "ResultWriter",
    "ToleratedFailureCount",
    "ToleratedFailurePercentage",
    "Label",
]
_READER_ARGUMENTS: Final = {
    _GET: frozenset({"Bucket", "Key", "VersionId", "ExpectedBucketOwner"}),
    _LIST: frozenset({"Bucket", "Prefix", "StartAfter", "ExpectedBucketOwner"}),
}
_READER_CONFIG: Final = frozenset(
    [
        "InputType",
        "CSVHeaderLocation",
        "CSVHeaders",
        "CSVDelimiter",
        "MaxItems",
        "ItemsPointer",
        "Transformation",
        "ManifestType",
    ]
)
_INPUT_TYPES: Final = ("CSV", "JSON", "JSONL", "MANIFEST")
_BAD_LABEL = re.compile(r"[\s?*<>{}\[\]:;,\\|^~$#%&`\"/\x00-\x1f\x7f-\x9f]")
_MAX_LABEL: Final = 40


class MapChecker:
    def __init__(self, findings: Findings, expressions: ExpressionChecker) -> None:
        self._findings = findings
        self._expressions = expressions
        self._labels: set[str] = set()

    def check(self, state: Mapping[str, Any], where: str, scope: Scope, *, distributed: bool) -> None:
        if not distributed:
            for name in _DISTRIBUTED_ONLY:
                if name in state:
                    self._findings.schema(f"Field '{name}' is only supported in distributed mode.", where)
        if "Items" in state:
            if "ItemReader" in state:
                self._findings.schema("A Map state has either 'Items' or 'ItemReader'.", where)
            items = state["Items"]
            if not isinstance(items, list | dict) and not self._expressions.is_expression(items):
                self._findings.schema("Items must be an array, an object or an expression.", f"{where}/Items")
            self._expressions.template(items, f"{where}/Items", scope)
        if "ItemSelector" in state:
            self._expressions.template(state["ItemSelector"], f"{where}/ItemSelector", scope)
        for name, most, whole in (
            ("MaxConcurrency", MAX_ITEMS, True),
            ("ToleratedFailureCount", MAX_ITEMS, True),
            ("ToleratedFailurePercentage", 100, False),
        ):
            if name in state:
                self._number(state[name], f"{where}/{name}", scope, least=0, most=most, whole=whole)
        if "ItemReader" in state:
            self._reader(state["ItemReader"], f"{where}/ItemReader", scope)
        if "ItemBatcher" in state:
            self._batcher(state["ItemBatcher"], f"{where}/ItemBatcher", scope)
        if "ResultWriter" in state:
            self._writer(state["ResultWriter"], f"{where}/ResultWriter", scope)
        if "Label" in state:
            self._label(state["Label"], f"{where}/Label")

    def _number(self, value: Any, where: str, scope: Scope, *, least: int, most: int, whole: bool = True) -> None:
        self._expressions.number(
            value,
            where,
            scope,
            accepts=lambda number: least <= number <= most,
            wanted=f"{'an integer' if whole else 'a number'} from {least} to {most}",
            whole=whole,
        )

    def _label(self, label: Any, where: str) -> None:
        if not isinstance(label, str) or not 0 < len(label) <= _MAX_LABEL or _BAD_LABEL.search(label):
            self._findings.schema(f"Label must be 1 to {_MAX_LABEL} characters, without special ones.", where)
        elif label in self._labels:
            self._findings.schema(f"The label '{label}' is used twice.", where)
        else:
            self._labels.add(label)

    def _object(self, value: Any, where: str, known: frozenset[str]) -> bool:
        if not isinstance(value, dict):
            self._findings.schema("The value must be an object.", where)
            return False
        for name in sorted(value.keys() - known):
            self._findings.schema(f"Field '{name}' is not supported.", where)
        return True

    def _arguments(self, value: Any, where: str, scope: Scope, known: frozenset[str], required: list[str]) -> None:
        if self._expressions.is_expression(value):
            self._expressions.template(value, where, scope)
        elif self._object(value, where, known):
            for name in required:
                if name not in value:
                    self._findings.schema(f"The field '{name}' is required.", where)
            self._expressions.template(value, where, scope)

    def _reader(self, reader: Any, where: str, scope: Scope) -> None:
        if not self._object(reader, where, frozenset({"Resource", "Arguments", "ReaderConfig"})):
            return
        resource = reader.get("Resource")
        if resource not in _READER_ARGUMENTS:
            self._findings.schema(f"The Resource must be {_GET} or {_LIST}.", f"{where}/Resource")
            return
        required = ["Bucket", "Key"] if resource == _GET else ["Bucket"]
        known = _READER_ARGUMENTS[resource]
        self._arguments(reader.get("Arguments", {}), f"{where}/Arguments", scope, known, required)
        config = reader.get("ReaderConfig", {})
        if self._object(config, f"{where}/ReaderConfig", _READER_CONFIG):
            self._reader_config(config, f"{where}/ReaderConfig", scope, lists=resource == _LIST)

    def _reader_config(self, config: dict[str, Any], where: str, scope: Scope, *, lists: bool) -> None:
        def wrong(message: str, field: str) -> None:
            self._findings.schema(message, f"{where}/{field}")

        kind, manifest = config.get("InputType"), config.get("ManifestType")
        flattened = config.get("Transformation", "NONE") == "LOAD_AND_FLATTEN"
        if manifest not in (None, "S3_INVENTORY"):
            wrong(f"ManifestType '{manifest}' is not supported by the local cloud.", "ManifestType")
        if manifest is not None and kind is not None:
            wrong("InputType must not be given with ManifestType S3_INVENTORY.", "InputType")
        if kind is None and manifest is None and (not lists or flattened):
            self._findings.schema("The field 'InputType' is required.", where)
        if kind is not None and kind not in _INPUT_TYPES:
            wrong(f"InputType must be one of {', '.join(_INPUT_TYPES)}, not '{kind}'.", "InputType")
        if "Transformation" in config and (not lists or config["Transformation"] not in ("NONE", "LOAD_AND_FLATTEN")):
            wrong("Transformation is NONE or LOAD_AND_FLATTEN, for s3:listObjectsV2.", "Transformation")
        if lists and not flattened and kind is not None:
            wrong("InputType needs Transformation LOAD_AND_FLATTEN.", "InputType")
        if lists and kind == "MANIFEST":
            wrong("A listing cannot be read as MANIFEST.", "InputType")
        if "ItemsPointer" in config and (kind != "JSON" or not str(config["ItemsPointer"]).startswith("/")):
            wrong("ItemsPointer is a JSON pointer, for InputType JSON.", "ItemsPointer")
        self._csv(config, kind, wrong)
        if "MaxItems" in config:
            self._number(config["MaxItems"], f"{where}/MaxItems", scope, least=0, most=MAX_ITEMS)

    def _csv(self, config: dict[str, Any], kind: Any, wrong: Any) -> None:
        location = config.get("CSVHeaderLocation")
        if kind == "CSV" and location not in ("FIRST_ROW", "GIVEN"):
            wrong("CSVHeaderLocation must be FIRST_ROW or GIVEN.", "CSVHeaderLocation")
        if kind not in ("CSV", "MANIFEST") and {"CSVHeaderLocation", "CSVHeaders", "CSVDelimiter"} & config.keys():
            wrong("CSV fields need InputType CSV.", "InputType")
        headers = config.get("CSVHeaders")
        if (location == "GIVEN") != (headers is not None):
            wrong("CSVHeaders belongs to CSVHeaderLocation GIVEN.", "CSVHeaders")
        if headers is not None and (not isinstance(headers, list) or not all(isinstance(h, str) for h in headers)):
            wrong("CSVHeaders must be an array of strings.", "CSVHeaders")
        if config.get("CSVDelimiter", "COMMA") not in DELIMITERS:
            wrong(f"CSVDelimiter must be one of {', '.join(DELIMITERS)}.", "CSVDelimiter")

    def _batcher(self, batcher: Any, where: str, scope: Scope) -> None:
        if not self._object(batcher, where, frozenset({"MaxItemsPerBatch", "MaxInputBytesPerBatch", "BatchInput"})):
            return
        if not batcher.keys() & {"MaxItemsPerBatch", "MaxInputBytesPerBatch"}:
            self._findings.schema("ItemBatcher needs MaxItemsPerBatch or MaxInputBytesPerBatch.", where)
        for name, most in (("MaxItemsPerBatch", MAX_ITEMS), ("MaxInputBytesPerBatch", MAX_PAYLOAD_BYTES)):
            if name in batcher:
                self._number(batcher[name], f"{where}/{name}", scope, least=1, most=most)
        if "BatchInput" in batcher:
            self._expressions.template(batcher["BatchInput"], f"{where}/BatchInput", scope)

    def _writer(self, writer: Any, where: str, scope: Scope) -> None:
        if not self._object(writer, where, frozenset({"Resource", "Arguments", "WriterConfig"})):
            return
        if not writer:
            self._findings.schema("ResultWriter cannot be empty.", where)
        if ("Resource" in writer) != ("Arguments" in writer):
            self._findings.schema("ResultWriter needs both 'Resource' and 'Arguments' to export.", where)
        if "Resource" in writer:
            if writer["Resource"] != _PUT:
                self._findings.schema(f"The Resource must be {_PUT}.", f"{where}/Resource")
            known = frozenset({"Bucket", "Prefix"})
            self._arguments(writer.get("Arguments", {}), f"{where}/Arguments", scope, known, ["Bucket"])
        config = writer.get("WriterConfig", {})
        if self._object(config, f"{where}/WriterConfig", frozenset({"Transformation", "OutputType"})):
            if config.get("Transformation", "NONE") not in ("NONE", "COMPACT", "FLATTEN"):
                self._findings.schema("Transformation must be NONE, COMPACT or FLATTEN.", f"{where}/WriterConfig")
            if config.get("OutputType", "JSON") not in ("JSON", "JSONL"):
                self._findings.schema("OutputType must be JSON or JSONL.", f"{where}/WriterConfig")
            if config.get("OutputType") == "JSONL" and "Resource" not in writer:
                self._findings.schema(
                    "OutputType JSONL without an export is not supported by the local cloud.", f"{where}/WriterConfig"
                )

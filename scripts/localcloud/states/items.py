"""The items of a Map state: from its input, or read from S3 by an ItemReader.

Source: developer guide, "ItemReader (Map)", "ItemBatcher (Map)", "How Step Functions parses input CSV
files", and "Accessing execution data from the Context object".
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, Final

import zstandard

from localcloud.states.errors import EvaluationError, StateError
from localcloud.states.limits import (
    MAX_CSV_HEADER_BYTES,
    MAX_ITEMS,
    MAX_PAYLOAD_BYTES,
    MAX_READ_ITEM_BYTES,
    checked_payload,
    compact,
    size_of,
)
from localcloud.states.services import Caller, ObjectStore
from localcloud.states.visit import Visit

DELIMITERS: Final = {"COMMA": ",", "PIPE": "|", "SEMICOLON": ";", "SPACE": " ", "TAB": "\t"}


@dataclass(frozen=True, kw_only=True)
class Item:
    """An item of a map. ``key`` is set for members of an object; ``source`` as the context object shows it."""

    index: int
    value: Any
    source: str
    key: str | None = None

    def selected(self, visit: Visit) -> Any:
        """What the iteration gets: the ItemSelector's value, or the item as it is."""
        if "ItemSelector" in visit.state:
            about = {"Index": self.index, "Value": self.value, "Source": self.source}
            if self.key is not None:
                about["Key"] = self.key
            return visit.value(visit.state["ItemSelector"], "ItemSelector", context={"Map": {"Item": about}})
        return self.value if self.key is None else {"Key": self.key, "Value": self.value}


def state_items(visit: Visit) -> Iterator[Item]:
    """The items of the ``Items`` field, or of the state's input. Raises ``EvaluationError``."""
    return _numbered(visit.field("Items", visit.input), source="STATE_DATA", field="Items")


def child_inputs(visit: Visit, items: Iterator[Item]) -> Iterator[tuple[str, int]]:
    """The JSON input of each child and how many items are in it. Raises ``StateError``."""
    if "ItemBatcher" not in visit.state:
        for item in items:
            yield checked_payload(item.selected(visit), what=f"The item {item.index} of the state '{visit.name}'"), 1
        return
    batcher = visit.state["ItemBatcher"]
    most_items = _batch_limit(visit, batcher, "MaxItemsPerBatch", MAX_ITEMS)
    most_bytes = _batch_limit(visit, batcher, "MaxInputBytesPerBatch", MAX_PAYLOAD_BYTES)
    shared = {}
    if "BatchInput" in batcher:
        shared["BatchInput"] = visit.value(batcher["BatchInput"], "ItemBatcher/BatchInput")
    overhead = size_of(compact({**shared, "Items": []}))
    batch: list[str] = []
    size = overhead
    prefix = compact({**shared, "Items": []})[:-2]
    for item in items:
        text = compact(item.selected(visit))
        added = size_of(text) + (1 if batch else 0)
        if batch and (len(batch) >= most_items or size + added > most_bytes):
            yield f"{prefix}{','.join(batch)}]}}", len(batch)
            batch, size, added = [], overhead, size_of(text)
        if size + added > most_bytes:
            raise StateError(
                "States.DataLimitExceeded", f"The item {item.index} of the state '{visit.name}' fits in no batch."
            )
        batch.append(text)
        size += added
    if batch:
        yield f"{prefix}{','.join(batch)}]}}", len(batch)


def _batch_limit(visit: Visit, batcher: Mapping[str, Any], name: str, most: int) -> int:
    value = visit.value(batcher.get(name, most), f"ItemBatcher/{name}")
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
        raise EvaluationError(f"The field '{name}' needs an integer from 1 to {most}.", location=f"ItemBatcher/{name}")
    return value


def _numbered(value: Any, *, source: str, field: str) -> Iterator[Item]:
    if isinstance(value, list):
        return (Item(index=index, value=item, source=source) for index, item in enumerate(value))
    if isinstance(value, dict):
        return (
            Item(index=index, value=item, key=key, source=source) for index, (key, item) in enumerate(value.items())
        )
    raise EvaluationError(f"The field '{field}' needs an array or an object.", location=field)


class ItemReader:
    """Reads the dataset of one Map state. Whatever goes wrong is ``States.ItemReaderFailed``."""

    def __init__(self, visit: Visit, *, objects: ObjectStore, caller: Caller) -> None:
        reader = visit.state["ItemReader"]
        self._objects = objects
        self._caller = caller
        self._config: Mapping[str, Any] = visit.value(reader.get("ReaderConfig", {}), "ItemReader/ReaderConfig")
        self._arguments: Mapping[str, Any] = visit.value(reader["Arguments"], "ItemReader/Arguments")
        self._lists = reader["Resource"].endswith(":s3:listObjectsV2")
        most = self._config.get("MaxItems", MAX_ITEMS)
        if isinstance(most, bool) or not isinstance(most, int) or most < 0:
            raise EvaluationError(
                "The field 'MaxItems' needs a non-negative integer.", location="ItemReader/ReaderConfig/MaxItems"
            )
        self._most = min(most, MAX_ITEMS) or MAX_ITEMS

    def items(self) -> Iterator[Item]:
        try:
            yield from itertools.islice(self._items(), self._most)
        except (OSError, ValueError, KeyError, csv.Error, zstandard.ZstdError) as error:
            raise StateError("States.ItemReaderFailed", _reason(error)) from error

    def _items(self) -> Iterator[Item]:
        if self._lists:
            yield from self._listed()
            return
        bucket, key = self._arguments["Bucket"], self._arguments["Key"]
        if self._config.get("InputType") == "MANIFEST" or self._config.get("ManifestType") == "S3_INVENTORY":
            with self._open(self._arguments) as stream:
                manifest = json.load(stream)
            yield from _renumbered(self._inventory(manifest))
            return
        with self._open(self._arguments) as stream:
            yield from self._parsed(stream, source=f"S3://{bucket}/{key}")

    def _listed(self) -> Iterator[Item]:
        bucket = self._arguments["Bucket"]
        found = self._objects.list(self._caller, self._arguments)
        if self._config.get("Transformation", "NONE") == "NONE":
            for index, about in enumerate(found):
                yield Item(index=index, value=dict(about), source=f"S3://{bucket}")
            return
        yield from _renumbered(
            item for about in found for item in self._object_items({"Bucket": bucket, "Key": about["Key"]})
        )

    def _object_items(self, arguments: Mapping[str, Any]) -> Iterator[Item]:
        with self._open(arguments) as stream:
            yield from self._parsed(stream, source=f"S3://{arguments['Bucket']}/{arguments['Key']}")

    def _open(self, arguments: Mapping[str, Any]) -> IO[bytes]:
        stream = self._objects.open(self._caller, arguments)
        key: str = arguments["Key"]
        if key.endswith(".gz"):
            return io.BufferedReader(gzip.GzipFile(fileobj=stream))
        if key.endswith((".zstd", ".zst")):
            return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(stream))
        return stream

    def _parsed(self, stream: IO[bytes], *, source: str) -> Iterator[Item]:
        kind = self._config["InputType"]
        if kind == "JSONL":
            yield from _json_lines(stream, source)
        elif kind == "CSV":
            yield from self._rows(stream, source, self._headers())
        else:
            value = _pointed(json.load(stream), self._config.get("ItemsPointer", ""))
            if not isinstance(value, list | dict):
                raise ValueError("the JSON file must contain an array or an object of items")
            yield from _numbered(value, source=source, field="ItemReader")

    def _headers(self) -> list[str] | None:
        return list(self._config["CSVHeaders"]) if self._config.get("CSVHeaderLocation") == "GIVEN" else None

    def _rows(self, stream: IO[bytes], source: str, headers: list[str] | None) -> Iterator[Item]:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        csv.field_size_limit(MAX_READ_ITEM_BYTES)
        delimiter = DELIMITERS[self._config.get("CSVDelimiter", "COMMA")]
        # Strict, so that a file cut off inside a quoted field is an error and not one item less.
        rows = csv.reader(text, delimiter=delimiter, escapechar="\\", strict=True)
        if headers is None:
            headers = next(rows, [])
        if size_of(",".join(headers)) > MAX_CSV_HEADER_BYTES:
            raise ValueError("the CSV header is bigger than 10 KiB")
        for index, row in enumerate(row for row in rows if row):
            padded = [*row, *[""] * (len(headers) - len(row))]
            # Cells beyond the header are skipped, as the developer guide says.
            yield Item(index=index, value=dict(zip(headers, padded, strict=False)), source=source)

    def _inventory(self, manifest: Mapping[str, Any]) -> Iterator[Item]:
        if manifest.get("fileFormat") != "CSV":
            raise ValueError("an S3 inventory must be in CSV format")
        headers = [name.strip() for name in manifest["fileSchema"].split(",")]
        bucket = manifest["destinationBucket"].rsplit(":", 1)[-1]
        for entry in manifest["files"]:
            arguments = {"Bucket": bucket, "Key": entry["key"]}
            with self._open(arguments) as stream:
                yield from self._rows(stream, f"S3://{bucket}/{entry['key']}", headers)


def _renumbered(items: Iterator[Item]) -> Iterator[Item]:
    for index, item in enumerate(items):
        yield Item(index=index, value=item.value, source=item.source, key=item.key)


def _json_lines(stream: IO[bytes], source: str) -> Iterator[Item]:
    index = 0
    while line := stream.readline(MAX_READ_ITEM_BYTES + 1):
        if len(line) > MAX_READ_ITEM_BYTES:
            raise ValueError(f"the item {index} is bigger than 8 MB")
        if line.strip():
            yield Item(index=index, value=json.loads(line), source=source)
            index += 1


def _pointed(value: Any, pointer: str) -> Any:
    """The part of ``value`` at a JSON pointer (RFC 6901)."""
    if not pointer:
        return value
    for part in pointer.removeprefix("/").split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        value = value[int(name)] if isinstance(value, list) else value[name]
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"The dataset has no {error}."
    return str(error) or type(error).__name__

"""What an inspection answers, in a few lines: what is in it, what changed, what to do, what deleting frees."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.layout import columns, filled
from blockferry.cost.bill import GIB, usd
from blockferry.cost.copying import NOTHING

MOST_REASON_LINES = 6
MOST_FREED = 3
"""Members of a chain that are named: those that free most."""

_HEAD = ("", "once", "12 months with storage", "time")


def answer(report: Mapping[str, Any]) -> list[str]:
    """At most 15 lines. Without a way to copy it there are no figures, but the reason."""
    return [*_contents(report), *_copying(report), *_keeping(report), *_chain(report["chain"]), _more(report)]


def possible(choices: Sequence[Mapping[str, Any]], *, copies: bool) -> list[Mapping[str, Any]]:
    """The choices to copy, or to keep, that can be made today, the cheapest first."""
    found = [c for c in choices if c["possible"] and not c["planned"] and (c["name"] in COPYING) == copies]
    return sorted(found, key=lambda choice: float(choice["year_usd"]))


COPYING = frozenset({"direct", "sync", "copy_snapshot", "time_based_copy"})
"""Names of the choices that copy; the others keep."""


def size(of: int) -> str:
    """Bytes as GiB, the one unit of reports, with two digits that say something."""
    return f"{number(of)} GiB"


def number(of: int) -> str:
    """Bytes in GiB without the unit."""
    gib = of / GIB
    if gib == 0 or gib >= 10:
        return f"{gib:,.0f}"
    digits = 1 if gib >= 1 else min(4, 1 - math.floor(math.log10(gib)))
    return f"{gib:.{digits}f}"


def lasting(seconds: int | None) -> str:
    """A time that a copy takes."""
    if seconds is None:
        return "not promised"
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.1f} h"


def _contents(report: Mapping[str, Any]) -> list[str]:
    source, delta = report["source"], report["delta"]
    text = f"{source['snapshot_id']} in {source['region']}: {number(report['allocated_bytes'])} of "
    text += f"{source['volume_size_gib']} GiB, {'encrypted' if source['encrypted'] else 'not encrypted'}"
    if report["zero_blocks"] is not None:
        text += f", {number(report['zero_blocks'] * BLOCK_SIZE)} GiB zeros"
    if delta is None:
        return [text]
    since = f"since {report['base']['snapshot_id']}"
    if not delta["bytes_to_write"]:
        return [text, f"{since}: nothing changed"]
    new, gone = (number(delta[f"{name}_blocks"] * BLOCK_SIZE) for name in ("added", "removed"))
    return [text, f"{since}: {size(delta['bytes_to_write'])} changed, {new} of it new, {gone} gone"]


def _copying(report: Mapping[str, Any]) -> list[str]:
    advice = report["recommendation"]
    places = [each["region"] for each in report["destinations"]]
    head = f"to copy it to {places[0] if len(places) == 1 else f'{len(places)} places'}: "
    ways = possible(report["choices"], copies=True)
    best = next((way for way in ways if way["name"] == advice["choice"]), None)
    if best is None:
        text = head + ("nothing to do: " if advice["choice"] == NOTHING else "no way: ") + advice["reason"]
        return filled(text, rest="  ", lines=MOST_REASON_LINES).splitlines()
    lines = [head + best["title"] + (", on conditions (see --full)" if best["conditions"] else "")]
    lines += [f"  {command}" for command in advice["commands"][:1]]
    rows = [
        (f"  {way['title']}", usd(way["one_time_usd"]), usd(way["year_usd"]), lasting(way["seconds"])) for way in ways
    ]
    return [*lines, *("  ".join(row) for row in columns([_HEAD, *rows])), *_unseen(report["destinations"])]


def _unseen(destinations: Sequence[Mapping[str, Any]]) -> list[str]:
    """What might change the advice: places that could not be looked at, and a base that nobody has named."""
    lines = []
    unseen = sorted({each["region"] for each in destinations if not each["seen"]})
    if unseen:
        lines.append(f"  what stands in {', '.join(unseen[:3])}{' ...' * (len(unseen) > 3)} could not be looked at")
    earlier = {each["earlier_id"] for each in destinations}
    if len(earlier) == 1 and None not in earlier:
        lines.append(f"  a copy of {earlier.pop()} stands there: name it as --base to price a sync")
    return lines


def _keeping(report: Mapping[str, Any]) -> list[str]:
    cheapest = report["cheapest_keep"]
    as_it_is, freed = cheapest["standard_year_usd"], cheapest["deleting_frees_year_usd"]
    saved = as_it_is if freed is None else freed
    most = "at most " if freed is None else ""
    if saved <= cheapest["year_usd"]:
        return [f"to keep it for 12 months: leave it as it is, {most}{usd(saved)}"]
    title = next(choice["title"] for choice in report["choices"] if choice["name"] == cheapest["choice"])
    return [f"to keep it for 12 months: {title} {usd(cheapest['year_usd'])}, instead of {most}{usd(saved)}"]


def _chain(chain: Mapping[str, Any] | None) -> list[str]:
    if chain is None:
        return []
    members = sorted(chain["snapshots"], key=lambda row: int(row["frees_blocks"]), reverse=True)
    most = "" if chain["other_snapshots_count"] == 0 else " at most"
    which = f", the {MOST_FREED} most" if len(members) > MOST_FREED else ""
    lines = [f"the {len(members)} snapshots hold {size(chain['stored_bytes'])}; deleting one alone frees{most}{which}:"]
    lines += [
        f"  {row['snapshot_id']}  {size(row['frees_bytes'])}, {usd(row['frees_usd_month'])} a month"
        for row in members[:MOST_FREED]
    ]
    return lines


def _more(report: Mapping[str, Any]) -> str:
    return f"more: --full, or {report['report_uri']}"

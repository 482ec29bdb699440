"""Evaluations side by side, with what differs by more than chance marked.

    movq compare a.json b.json c.json

reads what `movq evaluate --json=FILE` wrote. The first file is what the others are
compared with: `+` and `-` mark a mean that is better or worse beyond both intervals,
`=` one that is not; a distance of sets has no interval and gets no mark. Numbers of
another protocol, other weights or another reference are no comparison, and so are
Fréchet distances of another number of images: they are refused, unless --force is
given; then each of them is named.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import movq_jax
from movq_jax.errors import UserError
from movq_jax.evaluation.metric_table import METRICS
from movq_jax.evaluation.metric_text import interval_text, value_text
from movq_jax.tools import command

BETTER, WORSE, EQUAL, UNKNOWN = "+", "-", "=", ""
_PROTOCOL = ("size", "resize", "crop", "rounding", "network", "network_resize")
_BY_METRIC = {
    "is": ("is_variant",),
    "precision": ("precision_distance",),
    "recall": ("precision_distance",),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        UserError: a file is none of `movq evaluate`, or the numbers of two are not to
            be compared.
    """
    args = _parser().parse_args(argv)
    if len(args.records) < 2:
        raise UserError(
            "compare needs two records at least: movq compare a.json b.json"
        )
    entries = [entry for path in args.records for entry in read_records(path)]
    first, *others = entries
    problems = [
        f"{name}: {problem}"
        for name, record in others
        for problem in differences(first[1], record)
    ]
    if problems and not args.force:
        raise UserError(
            f"not to be compared with {first[0]}: {'; '.join(problems)} (--force shows "
            "them side by side all the same)"
        )
    record = {
        "tool": "compare",
        "version": movq_jax.__version__,
        "records": [name for name, _ in entries],
        "not_comparable": problems,
        "metrics": compare(entries),
    }
    command.emit_json(record, args.json)
    print(_text(record), file=command.human_stream(args.json))


def read_records(path: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the records of a file, each with what it is called.

    Raises:
        UserError: the file is not what `movq evaluate` writes.
    """
    try:
        record = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    several = record.get("results") if isinstance(record, dict) else None
    found = several if isinstance(several, list) and several else [record]
    for one in found:
        _check_record(path, one)
    if several is None:
        return [(path, record)]
    return [(f"{path} {one['protocol']['name']}", one) for one in found]


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Say why the numbers of two records are not to be compared; [] if they are."""
    shared = [name for name in a["metrics"] if name in b["metrics"]]
    keys = list(_PROTOCOL)
    for name in shared:
        keys += [key for key in _BY_METRIC.get(name, ()) if key not in keys]
    said = [
        f"its protocol has {key} {_said(b['protocol'].get(key))}, not "
        f"{_said(a['protocol'].get(key))}"
        for key in keys
        if a["protocol"].get(key) != b["protocol"].get(key)
    ]
    said += [
        f"it has other weights of {network}"
        for network, digits in a["networks"].items()
        if b["networks"].get(network, digits) != digits
    ]
    references = [record.get("reference") or {} for record in (a, b)]
    digits = [reference.get("fingerprint") for reference in references]
    if None not in digits and digits[0] != digits[1]:
        ours, theirs = (reference.get("name") for reference in references)
        which = f"{theirs}, not {ours}" if ours != theirs else f"{ours}, but changed"
        said.append(f"it is compared with other images ({which})")
    frechet = [name for name in shared if name in METRICS and METRICS[name].is_frechet]
    counts = [[r["metrics"][name]["count"] for name in frechet] for r in (a, b)]
    if counts[0] != counts[1]:
        said.append(
            f"{' and '.join(METRICS[name].title for name in frechet)} of "
            f"{counts[1][0]:,} images, not {counts[0][0]:,}: the bias is another"
        )
    return said


def compare(
    entries: Sequence[tuple[str, Mapping[str, Any]]],
) -> dict[str, list[dict[str, Any]]]:
    """Return for each metric an entry a record: value, low, high and mark."""
    names = dict.fromkeys(name for _, record in entries for name in record["metrics"])
    first = entries[0][1]["metrics"]
    return {
        name: [
            {
                **{
                    key: record["metrics"].get(name, {}).get(key)
                    for key in ("value", "low", "high", "std", "count")
                },
                "mark": UNKNOWN
                if number == 0
                else mark(first.get(name), record["metrics"].get(name)),
            }
            for number, (_, record) in enumerate(entries)
        ]
        for name in names
    }


def mark(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> str:
    """Tell whether `b` is better (+) or worse (-) than `a` beyond both intervals."""
    ends = [x.get(key) for x in (a or {}, b or {}) for key in ("low", "high")]
    if None in ends:
        return UNKNOWN
    a_low, a_high, b_low, b_high = ends
    if b_low <= a_high and a_low <= b_high:
        return EQUAL
    return BETTER if (b_low > a_high) == a["higher_is_better"] else WORSE


def _check_record(path: str, record: Any) -> None:
    wanted = {"protocol": dict, "networks": dict, "metrics": dict}
    ok = isinstance(record, dict) and record.get("tool") == "evaluate"
    ok = ok and all(isinstance(record.get(key), kind) for key, kind in wanted.items())
    ok = ok and all(
        isinstance(found, dict) and {"value", "count", "higher_is_better"} <= set(found)
        for found in record["metrics"].values()
    )
    if not ok or "name" not in record["protocol"]:
        raise UserError(
            f"{path} is not what `movq evaluate --json=FILE` writes: make it again"
        )


def _text(record: Mapping[str, Any]) -> str:
    cells = [["metric", *record["records"]]]
    for name, found in record["metrics"].items():
        row = [METRICS[name].title if name in METRICS else name]
        for one in found:
            interval = interval_text(name, one)
            text = value_text(name, one["value"])
            row.append(f"{text} ({interval}) {one['mark']}".replace(" ()", "").strip())
        cells.append(row)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        for row in cells
    ]
    lines += [f"NOT COMPARABLE: {problem}" for problem in record["not_comparable"]]
    lines.append(f"{BETTER} better, {WORSE} worse, {EQUAL} within the intervals")
    return "\n".join(line.rstrip() for line in lines)


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(str(part) for part in value.values())
    return str(value)


def _parser() -> command.ArgumentParser:
    parser = command.ArgumentParser(prog="movq compare", description=__doc__)
    parser.add_argument("records", nargs="+", metavar="FILE", help="JSON records")
    parser.add_argument(
        "--force", action="store_true", help="show what is not to be compared, too"
    )
    command.add_json_flag(parser)
    return parser


if __name__ == "__main__":
    sys.exit(command.run(main))

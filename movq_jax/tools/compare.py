"""Evaluations side by side, with what differs by more than chance marked.

    movq compare a.json b.json c.json

reads what `movq evaluate --json=FILE` wrote. The first file is what the others are
compared with: `+` and `-` mark a mean that is better or worse beyond both intervals,
`=` one that is not; a distance of sets has no interval and gets no mark. Where a file
has several protocols, the records of one protocol stand beside each other.

Numbers that were made differently are no comparison: what each metric depends on, from
protocol and weights to the reference and, of sets, the number of images, has to be the
same. Else they are refused, unless --force is given; then each reason is named.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import movq_jax
from movq_jax.errors import UserError
from movq_jax.evaluation.metric_table import METRICS, PRIOR, SETS
from movq_jax.evaluation.metric_text import interval_text, value_text
from movq_jax.evaluation.protocols import said
from movq_jax.tools import command, files
from movq_jax.tools.compare_records import Record, read_records

BETTER, WORSE, EQUAL, UNKNOWN = "+", "-", "=", ""
# Of a record of `nll`: what it depends on, besides the pixels.
_LIKELIHOOD = {
    "split": "of the split",
    "tokenizer": "of indices of the tokenizer",
    "preprocessing": "of images prepared by",
    "maskings": "of as many maskings as",
    "seed": "of maskings of the seed",
}

Entries = Sequence[tuple[str, Record]]


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
    if args.json not in (None, command.STDOUT):
        inputs = [Path(path).expanduser() for path in args.records]
        files.refuse_same_file({"--json": Path(args.json).expanduser()}, inputs)
    groups, alone = _groups([(path, read_records(path)) for path in args.records])
    records = [_record(name, entries, alone) for name, entries in groups.items()]
    problems = [problem for record in records for problem in record["not_comparable"]]
    if problems and not args.force:
        first = next(iter(groups.values()))[0][0]
        raise UserError(
            f"not to be compared with {first}: {'; '.join(problems)} (--force shows "
            "them side by side all the same)"
        )
    whole = records[0]
    if len(records) > 1:
        whole = {"tool": "compare", "version": movq_jax.__version__, "results": records}
    command.emit_json(whole, args.json)
    text = "\n\n".join(_text(record) for record in records)
    print(text, file=command.human_stream(args.json))


def _groups(
    read: Sequence[tuple[str, list[Record]]],
) -> tuple[dict[str, Entries], list[str]]:
    """Return what stands beside each other, and what is in one file alone.

    Raises:
        UserError: the files have no protocol in common.
    """
    if all(len(records) == 1 for _, records in read):
        return {"": [(path, records[0]) for path, records in read]}, []
    groups: dict[str, list[tuple[str, Record]]] = {}
    for path, records in read:
        for record in records:
            name = (record["protocol"] or {}).get("name", "none")
            groups.setdefault(name, []).append((path, record))
    alone = [
        f"the protocol {name} is in {entries[0][0]} alone"
        for name, entries in groups.items()
        if len(entries) == 1
    ]
    common = {name: entries for name, entries in groups.items() if len(entries) > 1}
    if not common:
        raise UserError(f"the files have no protocol in common: {'; '.join(alone)}")
    return common, alone


def _record(name: str, entries: Entries, notes: Sequence[str]) -> Record:
    """Return the comparison of the records of a group."""
    (_, first), *others = entries
    differing = [(path, differences(first, record)) for path, record in others]
    return {
        "tool": "compare",
        "version": movq_jax.__version__,
        **({"protocol": name} if name else {}),
        "records": [path for path, _ in entries],
        "notes": list(notes),
        "not_comparable": [
            f"{path}: {', '.join(metrics)}{': ' if metrics else ''}{reason}"
            for path, reasons in differing
            for reason, metrics in reasons.items()
        ],
        "metrics": compare(entries),
    }


def differences(a: Record, b: Record) -> dict[str, list[str]]:
    """Say why numbers of two records are not to be compared: reason -> metrics."""
    shared = [name for name in a["metrics"] if name in b["metrics"]]
    if not shared:
        ours, theirs = (", ".join(x["metrics"]) or "none" for x in (a, b))
        return {f"it has no metric in common ({theirs}, not {ours})": []}
    found: dict[str, list[str]] = {}
    for name in shared:
        for reason in _reasons(name, a, b):
            found.setdefault(reason, []).append(name)
    return found


def _reasons(name: str, a: Record, b: Record) -> Iterator[str]:
    """Yield why the numbers of one metric in two records are not to be compared."""
    metric = METRICS[name]
    ours, theirs = a["metrics"][name], b["metrics"][name]
    if metric.kind == PRIOR:
        yield from _reasons_of_likelihood(ours, theirs)
        return
    keys = list(metric.looks_at)
    if a.get("model") and b.get("model"):
        keys.append("rounding")  # of a model's output; stored images are uint8 already
    for key in keys:
        mine, its = (record["protocol"].get(key) for record in (a, b))
        if mine != its:
            yield f"its protocol has {key} {said(its)}, not {said(mine)}"
    digits = [record["networks"].get(metric.network) for record in (a, b)]
    if digits[0] != digits[1]:
        yield f"it has other weights of {metric.network}"
    if "reference" in ours:
        yield from _reasons_of_reference(
            *(x["reference"][x["metrics"][name]["reference"]] for x in (a, b))
        )
    if metric.kind == SETS and name != "kid" and ours["count"] != theirs["count"]:
        # Of KID alone the mean does not depend on the number.
        few, many = theirs["count"], ours["count"]
        yield f"of {few:,} images, not {many:,}: the bias is another"
    if ours.get("subset_size") != theirs.get("subset_size"):
        yield f"subsets of {theirs.get('subset_size')}, not {ours.get('subset_size')}"


def _reasons_of_reference(ours: Record, theirs: Record) -> Iterator[str]:
    if ours["fingerprint"] == theirs["fingerprint"]:
        return
    which = f"{theirs['name']}, not {ours['name']}"
    if ours["name"] == theirs["name"]:
        which = f"{ours['name']}, but changed"
    yield f"it is compared with other images ({which})"


def _reasons_of_likelihood(ours: Record, theirs: Record) -> Iterator[str]:
    said_before = False
    for key, text in _LIKELIHOOD.items():
        # Only a masked prior has maskings: its bound may stand beside exact numbers.
        if key in ours and key in theirs and ours[key] != theirs[key]:
            said_before = True
            yield f"{text} {theirs[key]!s:.60}, not {ours[key]!s:.60}"
    if ours["fingerprint"] != theirs["fingerprint"] and not said_before:
        yield "of other images, though the split is called the same"


def compare(
    entries: Entries,
) -> dict[str, list[dict[str, Any]]]:
    """Return for each metric an entry a record: value, low, high and mark."""
    names = dict.fromkeys(name for _, record in entries for name in record["metrics"])
    first = entries[0][1]["metrics"]
    # What is not to be compared gets no mark, nor does the first.
    unlike = [set(names)]
    for _, record in entries[1:]:
        reasons = differences(entries[0][1], record).values()
        unlike.append({name for metrics in reasons for name in metrics})
    return {
        name: [
            {
                **{
                    key: record["metrics"].get(name, {}).get(key)
                    for key in ("value", "low", "high", "std", "count")
                },
                "mark": UNKNOWN
                if name in unlike[number]
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


def _text(record: Mapping[str, Any]) -> str:
    lines = [f"protocol {record['protocol']}"] if "protocol" in record else []
    cells = [["metric", *record["records"]]]
    for name, found in record["metrics"].items():
        row = [METRICS[name].title]
        for one in found:
            interval = interval_text(name, one)
            text = value_text(name, one["value"])
            row.append(f"{text} ({interval}) {one['mark']}".replace(" ()", "").strip())
        cells.append(row)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines += [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        for row in cells
    ]
    lines += [f"note: {note}" for note in record["notes"]]
    lines += [f"NOT COMPARABLE: {problem}" for problem in record["not_comparable"]]
    lines.append(f"{BETTER} better, {WORSE} worse, {EQUAL} within the intervals")
    return "\n".join(line.rstrip() for line in lines)


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

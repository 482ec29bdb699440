"""Judge images, a tokenizer or a prior: PSNR to FID, by a protocol with a name.

    movq evaluate --images=out/reconstructions --reference=photos/ --metrics=psnr,ssim
    movq evaluate --model=runs/a --dataset=coco/2017 --metrics=psnr,lpips_vgg,fid
    movq evaluate --model=runs/p --dataset=coco/2017 --num=50000 --metrics=fid,is
    movq evaluate --images=samples.npz --reference=VIRTUAL_imagenet256_labeled.npz \\
        --protocol=adm --metrics=fid,sfid,is,precision,recall

prints a table and, with --json and --html, writes a record and a page with the worst
images. Both carry the protocol: number of images, resize and crop, rounding, network
and its weights, reference. docs/evaluation.md has the protocols and what each metric
is.

Metrics of pairs match two folders by the files' names, npz files and datasets by their
order. A tokenizer's images are compared with what it got. `nll` is of a prior: bits a
token of a split, as in training. Images go by one batch at a time; but kid, precision,
recall, density and coverage keep 8 kB of each. An image that cannot be used is named
and left out, and the exit code is 4.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import movq_jax
from movq_jax.atomic import write_text
from movq_jax.errors import UserError
from movq_jax.progress import Progress
from movq_jax.tools import command, evaluate_flags, image_data, sampling_flags
from movq_jax.tools.feeding import Refusals

WORST = 6  # images of a metric on the page


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        UserError: a flag or a path is wrong, weights are missing, or a metric could
            not be computed; what could be is printed and written before.
        InputsRefused: some images could not be used; the others are judged.
    """
    args = evaluate_flags.make_parser(__doc__).parse_args(argv)
    evaluate_flags.check(args)
    # Only now: networks are behind all that, and --help need not wait for jax.
    from movq_jax.evaluation import evaluation_page, reference_files
    from movq_jax.evaluation.networks import Networks
    from movq_jax.tools.evaluate_plan import make_plan

    plan = make_plan(args)
    networks = Networks(
        inception=args.inception,
        squeezenet=args.squeezenet,
        lpips=args.lpips,
        micro_batch=args.micro_batch,
    )
    suites = _suites(args, plan, networks)
    refusals = Refusals(total=_total(plan))
    with Progress(refusals.total, "images") as progress:
        if plan.source is not None:
            _judge(plan, suites, refusals, progress)
        nll = _likelihood(args, plan, refusals, progress) if plan.split else None
    if suites and not suites[0].count:
        refusals.raise_if_any()
        raise UserError(f"there is no image in {plan.source.name}")
    records = _records(args, plan, suites, networks, nll, refusals)
    if args.save_statistics:
        reference_files.write_statistics(
            Path(args.save_statistics).expanduser(),
            suites[0].statistics,
            protocol=suites[0].protocol.as_record(),
            networks=networks.fingerprints,
        )
    whole = records[0] if len(records) == 1 else _together(records)
    command.emit_json(whole, args.json)
    if args.html:
        worst = [suite.worst() for suite in suites] or [{}]
        page = evaluation_page.make_html(records, worst)
        write_text(Path(args.html).expanduser(), page)
    print(_text(records), file=command.human_stream(args.json))
    _raise_if_missing(records)
    refusals.raise_if_any()


def _suites(args: argparse.Namespace, plan: Any, networks: Any) -> list[Any]:
    """One a protocol, with all networks loaded: missing weights are met at once."""
    from movq_jax.evaluation.metric_table import PRIOR, of_kind
    from movq_jax.evaluation.suite import Suite
    from movq_jax.evaluation.suite_checks import check_counts

    if plan.source is None:
        return []
    metrics = [m for m in plan.metrics if m not in of_kind(plan.metrics, PRIOR)]
    counts = [len(plan.source)]
    counts += [len(plan.reference)] if plan.reference is not None else []
    check_counts(metrics, min(counts), kid_subset=args.kid_subset)
    nothing = not plan.partnered and plan.reference is None and plan.file is None
    suites = [
        Suite(
            protocol,
            metrics,
            networks,
            reference=plan.file,
            statistics_only=nothing,
            kid_subset=args.kid_subset,
            worst=WORST if args.html else 0,
        )
        for protocol in plan.protocols
    ]
    if not any(suite.needs_reference_images for suite in suites):
        plan.reference = None  # a file's statistics do
    return suites


def _total(plan: Any) -> int:
    sets = (plan.source, plan.reference, plan.split)
    return sum(len(images) for images in sets if images is not None)


def _judge(plan: Any, suites: Sequence[Any], refusals: Refusals, progress: Any) -> None:
    """Show all images to all suites; each is read once."""
    from movq_jax.evaluation.image_sets import in_chunks
    from movq_jax.tools.evaluate_sources import CHUNK

    def refuse(where: str, reason: str) -> None:
        refusals.add(where, reason, progress)

    for chunk in plan.source.chunks(refuse):
        for suite in suites:
            judged = plan.source.judge(chunk, suite.protocol, refuse)
            _show(suite, judged, partnered=plan.partnered, other=plan.reference)
        progress.advance(len(judged))
    if plan.reference is None:
        return
    wanting = [suite for suite in suites if suite.needs_reference_images]
    readable = (item for item in plan.reference.items(refuse) if item is not None)
    for items in in_chunks(readable, CHUNK):
        for suite in wanting:
            protocol = suite.protocol
            enlarged = sum(protocol.enlarges(item.image) for item in items)
            plan.source.enlarged[protocol.name] += enlarged
            suite.add_reference([protocol.prepare(item.image) for item in items])
        progress.advance(len(items))


def _show(suite: Any, judged: Sequence[Any], *, partnered: bool, other: Any) -> None:
    """Give a suite a batch; where there is no other reference, of its partners, too."""
    if not judged:
        return
    names, images, partners = (list(part) for part in zip(*judged, strict=True))
    suite.add(names, images, partners if partnered else None)
    if partnered and other is None and suite.needs_reference_images:
        suite.add_reference(partners)


def _likelihood(
    args: argparse.Namespace, plan: Any, refusals: Refusals, progress: Any
) -> dict[str, Any]:
    from movq_jax.tools.evaluate_likelihood import likelihood

    config = image_data.run_config(args.model)
    size = image_data.WHOLE if args.image_size == 0 else args.image_size
    transform, said = image_data.make_transform(size, plan.model, config)

    def prepare(image: np.ndarray) -> np.ndarray:
        # As everywhere, evaluation draws nothing.
        return transform(image, np.random.default_rng(0)) if transform else image

    record = likelihood(
        plan.model,
        plan.split,
        prepare,
        config=config,
        refuse=lambda where, reason: refusals.add(where, reason, progress),
        advance=progress.advance,
    )
    return {**record, "preprocessing": said}


def _records(
    args: argparse.Namespace,
    plan: Any,
    suites: Sequence[Any],
    networks: Any,
    nll: dict[str, Any] | None,
    refusals: Refusals,
) -> list[dict[str, Any]]:
    """Return one a protocol: the numbers, and all that they depend on."""
    records = []
    for protocol, suite in zip(
        plan.protocols, suites or [None] * len(plan.protocols), strict=True
    ):
        metrics = suite.compute() if suite else {}
        warnings = suite.warnings() if suite else []
        if nll is not None:
            metrics["nll"] = nll
        if len(plan.protocols) > 1:
            warnings.append("numbers of different protocols are not to be compared")
        enlarged = plan.source.enlarged[protocol.name] if plan.source else 0
        if enlarged:
            images = "1 image was" if enlarged == 1 else f"{enlarged} images were"
            warnings.append(
                f"{images} smaller than {protocol.size} pixels and enlarged: "
                "--image-size=whole takes images as they are"
            )
        records.append(
            {
                "tool": "evaluate",
                "version": movq_jax.__version__,
                "protocol": protocol.as_record(),
                "model": _model_record(args, plan),
                "num_images": suite.count if suite else nll["count"],
                "images": {"name": (plan.source or plan.split).name},
                "reference": _reference_record(plan, suite),
                "networks": dict(networks.fingerprints),
                "metrics": {m: metrics[m] for m in plan.metrics if m in metrics},
                "warnings": warnings,
                "refused": refusals.as_records(),
            }
        )
        if not suites:
            break  # nll has no protocol but that of the run
    return records


def _model_record(args: argparse.Namespace, plan: Any) -> dict[str, Any] | None:
    if plan.model is None:
        return None
    record = {
        "path": args.model,
        "fingerprint": plan.model.fingerprint,
        "micro_batch": plan.model.micro_batch,
        "protocol": plan.model.protocol,
    }
    if plan.is_prior and args.num is not None:
        chosen = plan.model.chosen(**sampling_flags.options(args))
        record["sampling"] = {"num": args.num, "seed": args.seed, **chosen}
    return record


def _reference_record(plan: Any, suite: Any) -> dict[str, Any] | None:
    if plan.reference_name is None or suite is None:
        return None
    record = {
        "name": plan.reference_name,
        "count": suite.reference_count,
        "fingerprint": suite.reference_fingerprint,
    }
    if plan.file is not None:
        record["protocol"] = plan.file.protocol or "unknown"
    return record


def _together(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one record of several protocols; nothing in it mixes their numbers."""
    return {
        "tool": "evaluate",
        "version": movq_jax.__version__,
        "results": list(records),
    }


def _text(records: Sequence[dict[str, Any]]) -> str:
    """Return the tables as people read them on a terminal."""
    from movq_jax.evaluation.metric_text import COLUMNS, notes_of, rows_of

    lines = []
    for record in records:
        protocol = record["protocol"]
        lines.append(f"protocol {protocol['name']}, {record['num_images']:,} images")
        cells = [list(COLUMNS), *rows_of(record)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for name, *rest in cells:
            row = [name.ljust(widths[0])]
            row += [t.rjust(w) for t, w in zip(rest, widths[1:], strict=True)]
            lines.append("  ".join(row).rstrip())
        lines += [f"note: {note}" for note in notes_of(record)]
        lines.append("")
    return "\n".join(lines[:-1])


def _raise_if_missing(records: Sequence[dict[str, Any]]) -> None:
    missing = [
        name
        for record in records
        for name, found in record["metrics"].items()
        if found["value"] is None and found.get("reason")
    ]
    if missing:
        raise UserError(f"{', '.join(missing)} could not be computed, see the notes")


if __name__ == "__main__":
    sys.exit(command.run(main))

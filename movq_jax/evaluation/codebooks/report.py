"""The report of a codebook as one HTML file that needs nothing beside it.

Pictures are inside as data URIs, the style is a few lines, there are no scripts. What
is said stands in `record`, which the command also writes as JSON; here it is laid out.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from movq_jax.evaluation.html_page import facts, figure, page, paragraph, section, table

MOST_PAIRS = 28  # rows of a table: all pairs of 8 channels

BOOK_COLUMNS = (
    "codes",
    "used",
    "usage",
    "dead",
    "perplexity",
    "entropy",
    "of log2 K",
    "bits a position",
)


class Picture(NamedTuple):
    """A picture of the report.

    Attributes:
      section: 'mosaics', 'usage', 'sorted', 'neighbours', 'best' or 'worst'.
      file: its name beside the report.
      title: over it; may be empty.
      caption: below it.
      alternative: for those who cannot see it.
    """

    section: str
    file: str
    title: str
    caption: str
    alternative: str


def make_html(record: Mapping[str, Any], pictures: Mapping[Picture, bytes]) -> str:
    """Return the report as HTML.

    Args:
      record: what `movq codebook` writes as JSON, see `movq_jax.tools.codebook`.
      pictures: each with its PNG file's bytes.
    """
    return page(
        f"Codebook of {record['model']['path']}",
        [
            facts(_header(record)),
            section("How the codes are used", _use(record, pictures)),
            section("The codes, decoded", _figures(pictures, "mosaics")),
            section("How two channels go together", _pairs(record)),
            section("Distances between codes", _neighbours(record, pictures)),
            section("Reconstructions", _reconstructions(record, pictures)),
            section("How it was measured", _protocol(record)),
        ],
    )


def _header(record: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    model, data, bits = record["model"], record["data"], record["bits"]
    second = record["second_model"]
    books = ", ".join(
        f"{_words(name)} {numbers['size']:,}"
        for name, numbers in record["books"].items()
    )
    fields = dict(model["quantizer"])
    name = fields.pop("name")
    rest = ", ".join(f"{key} {value}" for key, value in fields.items())
    yield "model", model["path"]
    yield "fingerprint", model["fingerprint"]
    yield "quantizer", f"{name} ({rest})" if rest else name
    yield "codes (K)", books
    yield "indices a position (M)", model["num_channels"]
    yield "side of a position (f)", f"{model['factor']} pixels"
    yield "bits a position", f"{bits['per_position']:.6g}"
    yield "bits an image", _bits(bits["per_image"])
    if second:
        yield "second model", f"{second['path']} ({second['fingerprint'][:12]})"
    yield "data", data["name"]
    if data["split"]:
        yield "split", data["split"]
    yield "images", f"{data['num_images']:,}"
    yield "positions", f"{data['positions']:,}"
    yield "preprocessing", record["protocol"]["preprocessing"]


def _use(record: Mapping[str, Any], pictures: Mapping[Picture, bytes]) -> Iterable[str]:
    books, channels = record["books"], record["channels"]
    rows, totals = [], []
    for name, numbers in books.items():
        members = [c for c in channels if c["book"] == name]
        several = len(members) > 1
        label = f"{_words(name)}, all channels" if several else _words(name)
        totals.append(len(rows))
        rows.append([label, *_code_cells(numbers)])
        if several:
            rows += [[f"channel {c['channel']}", *_code_cells(c)] for c in members]
    yield from _warnings(record)
    yield table(["", *BOOK_COLUMNS], rows, totals=totals)
    yield facts(
        [
            ("quantisation error (MSE)", f"{record['quantisation_mse']:.5g}"),
            (
                "entropy of all channels together, at most",
                f"{record['bits']['entropy_per_position']:.3f} of "
                f"{record['bits']['per_position']:.6g} bits a position",
            ),
        ]
    )
    yield paragraph(
        "Entropy is in bits, of the shares that were counted; "
        "perplexity is 2 to its power. The quantisation error is the mean square of "
        "what quantisation changes in an element of the latent, over all images, in "
        "the form that codes are compared in. "
        "What channels have in common would lower the sum of their entropies.",
        "note",
    )
    yield from _figures(pictures, "usage")
    yield from _figures(pictures, "sorted")


def _warnings(record: Mapping[str, Any]) -> Iterable[str]:
    """Say where too little was counted to speak of dead codes."""
    for name, numbers in record["books"].items():
        if numbers["positions"] < 10 * numbers["size"]:
            yield paragraph(
                f"{_words(name).capitalize()}: only "
                f"{_whole(numbers['positions'])} indices were counted for "
                f"{_whole(numbers['size'])} codes. Usage, entropy and mutual "
                "information need more images before they describe the model: at "
                "least ten indices a code.",
                "warning",
            )


def _pairs(record: Mapping[str, Any]) -> Iterable[str]:
    pairs = record["pairs"]
    if not pairs:
        yield paragraph("There is one index a position: no channels to compare.")
        return
    most = sorted(pairs, key=lambda pair: -pair["mutual_information"])[:MOST_PAIRS]
    if len(pairs) > len(most):
        yield paragraph(f"Of {len(pairs)} pairs, those with the most in common.")
    rows = [
        [
            f"{a} and {b}",
            _whole(pair["pairs"]),
            _whole(pair["most"]),
            _percent(pair["pairs"] / max(1, pair["most"])),
            f"{pair['mutual_information']:.3f}",
            f"{pair['corrected']:.3f}",
            _whole(pair["positions"]),
        ]
        for pair in most
        for a, b in [pair["channels"]]
    ]
    columns = [
        "channels",
        "pairs seen",
        "at most",
        "share",
        "mutual information",
        "corrected",
        "positions",
    ]
    yield table(columns, rows)
    yield paragraph(
        "At most: the smaller of K1 K2 and the number of positions. "
        "Mutual information, in bits, is how much one index tells of the other at the "
        "same position; 0 where they are independent. It comes out too high where "
        "positions are few: the corrected value has the bias of Miller and Madow "
        "taken off, which does not suffice either where there are fewer positions "
        "than pairs.",
        "note",
    )


def _neighbours(
    record: Mapping[str, Any], pictures: Mapping[Picture, bytes]
) -> Iterable[str]:
    rows = [
        [
            _words(name),
            *(f"{numbers['neighbours'][key]:.4g}" for key in ("min", "median", "max")),
            _whole(numbers["neighbours"]["equal"]),
        ]
        for name, numbers in record["books"].items()
        if numbers["neighbours"]
    ]
    if not rows:
        yield paragraph(
            "This quantizer keeps no book: its codes are a fixed grid, whose "
            "distances say nothing of the model."
        )
        return
    yield table(["book", "least", "median", "largest", "same as another code"], rows)
    yield paragraph(
        "Euclidean distance from each code, in the form in which "
        "features are compared with it, to the nearest other one of its book, used "
        "or not.",
        "note",
    )
    yield from _figures(pictures, "neighbours")


def _reconstructions(
    record: Mapping[str, Any], pictures: Mapping[Picture, bytes]
) -> Iterable[str]:
    numbers = record["reconstruction"]
    models = [("model", record["model"], numbers["model"])]
    if record["second_model"]:
        models.append(("second model", record["second_model"], numbers["second_model"]))
    rows = [
        [
            f"{label}: {model['path']}",
            f"{model['factor']}",
            f"{model['bits_per_position'] / model['factor'] ** 2:.4g}",
            _decibels(mean["psnr"]),
            "n/a" if mean["ssim"] is None else f"{mean['ssim']:.4f}",
        ]
        for label, model, mean in models
    ]
    yield table(["", "f", "bits a pixel", "mean PSNR", "mean SSIM"], rows)
    mean = numbers["model"]
    left_out = [
        f"{_whole(mean[f'{key}_left_out'])} {why}"
        for key, why in (
            ("psnr", "exact, without a PSNR"),
            ("ssim", "too small for SSIM"),
        )
        if mean[f"{key}_left_out"]
    ]
    if left_out:
        yield paragraph(f"Not in the means: {' and '.join(left_out)}.", "note")
    for which in ("best", "worst"):
        if numbers[which]:
            yield f"<h3>The {len(numbers[which])} {which} by PSNR</h3>"
            yield from _figures(pictures, which)
            yield _image_table(numbers[which], two=len(models) == 2)


def _image_table(images: Sequence[Mapping[str, Any]], *, two: bool) -> str:
    columns = ["image", "size", "PSNR", "SSIM"]
    columns += ["PSNR, second", "SSIM, second"] if two else []
    rows = []
    for number, image in enumerate(images, 1):
        cells = [f"{number}. {image['name']}", f"{image['width']} x {image['height']}"]
        for model in ("model", "second_model")[: 1 + two]:
            ssim = image[model]["ssim"]
            cells.append(_decibels(image[model]["psnr"]))
            cells.append("n/a" if ssim is None else f"{ssim:.4f}")
        rows.append(cells)
    return table(columns, rows)


def _protocol(record: Mapping[str, Any]) -> Iterable[str]:
    listed = [
        (_words(key), value)
        for key, value in record["protocol"].items()
        if not isinstance(value, Mapping)
    ]
    yield facts([*listed, ("movq_jax", record["version"])])
    if record["refused"]:
        count = len(record["refused"])
        images = "1 image was" if count == 1 else f"{count} images were"
        yield f"<h3>{images} refused</h3>"
        yield facts([(item["file"], item["reason"]) for item in record["refused"]])


def _figures(pictures: Mapping[Picture, bytes], where: str) -> Iterable[str]:
    for picture, png in pictures.items():
        if picture.section == where:
            yield figure(
                png,
                title=picture.title,
                caption=picture.caption,
                alternative=picture.alternative,
            )


def _code_cells(numbers: Mapping[str, Any]) -> list[str]:
    share = numbers["entropy_share"]
    return [
        _whole(numbers["size"]),
        _whole(numbers["used"]),
        _percent(numbers["usage"]),
        _whole(numbers["dead"]),
        f"{numbers['perplexity']:,.1f}",
        f"{numbers['entropy']:.3f}",
        "n/a" if share is None else _percent(share),
        f"{numbers['bits']:g}"
        if numbers["bits"] % 1 == 0
        else f"{numbers['bits']:.2f}",
    ]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _whole(number: int) -> str:
    return f"{number:,}"


def _percent(share: float) -> str:
    """A share in per cent; nothing that is short of all says 100."""
    text = f"{100 * share:.1f} %"
    return ">99.9 %" if text == "100.0 %" and share < 1 else text


def _decibels(value: float | None) -> str:
    return f"{value:.2f} dB" if value is not None and math.isfinite(value) else "exact"


def _bits(bits: Mapping[str, float]) -> str:
    if bits["least"] == bits["most"]:
        return f"{bits['mean']:,.0f}"
    return (
        f"{bits['mean']:,.0f} on average, {bits['least']:,.0f} to {bits['most']:,.0f}"
    )

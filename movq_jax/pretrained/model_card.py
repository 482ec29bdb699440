"""The model card: `README.md` in a bundle's folder, for people and for the Hub.

It is made of `config.json` alone, and is no part of the fingerprint: nothing reads it
again, and each writing of the bundle writes it anew.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from movq_jax.errors import UserError
from movq_jax.models.priors.tokens import Tokens
from movq_jax.models.tokenizer import build_tokenizer

CARD_FILE = "README.md"
UNKNOWN = "unknown"
_HERE = "path/to/this/folder"
_ROWS = {
    "weights": "Weights",
    "dataset": "Data",
    "split": "Split that it was evaluated on",
    "eval": "Evaluation",
    "step": "Training steps",
    "version": "Written by movq_jax",
}
_LIMITS = {
    "tokenizer": "Small text, faces and fine textures change in the reconstruction; "
    "images unlike the training data change more. Indices mean nothing to another "
    "tokenizer.",
    "prior": "It draws what its training data had, with their biases; look at samples "
    "before you rely on them. It draws indices of the tokenizer inside, and of no "
    "other.",
}


def model_card(
    record: Mapping[str, Any], num_parameters: int, place: str = _HERE
) -> str:
    """The card of a bundle, in Markdown.

    Args:
      record: what the bundle's `config.json` holds.
      num_parameters: how many numbers its weights are.
      place: what `movq_jax.load` takes to load it.
    """
    sections = [
        _front_matter(record),
        f"# {_title(record)}",
        "movq_jax makes this card of `config.json`, and makes it anew each time it "
        "writes the model: what is changed here is lost.",
        "## What it is",
        _table(_facts(record, num_parameters)),
        "## How to use it",
        _usage(record["kind"], place),
        "## Where it comes from",
        _table(_origin(record["protocol"])),
        "## What it reached",
        _metrics(record["protocol"]),
        "## Limits",
        _LIMITS.get(record["kind"], UNKNOWN),
    ]
    return "\n\n".join(sections) + "\n"


def licence_of(protocol: Mapping[str, Any]) -> str:
    """What a bundle's protocol says, else what the source of its weights says.

    Returns:
      an identifier as `Apache-2.0`; 'unknown' where nothing is said.
    """
    stated = protocol.get("licence") or _section(protocol, "source").get("licence")
    return stated if isinstance(stated, str) else UNKNOWN


def _front_matter(record: Mapping[str, Any]) -> str:
    licence = licence_of(record["protocol"])
    # The Hub knows licences by such names; what is none is another one.
    known = re.fullmatch(r"[A-Za-z0-9.+-]+", licence)
    lines = [f"license: {json.dumps(licence.lower() if known else 'other')}"]
    if not known:
        lines.append(f"license_name: {json.dumps(licence)}")
    lines += ["library_name: movq_jax", "tags:"]
    kind = {"tokenizer": "image-tokenizer", "prior": "image-generation"}
    tags = [kind.get(record["kind"], record["kind"]), "vector-quantization", "jax"]
    lines += [f"- {json.dumps(tag)}" for tag in tags]
    return "\n".join(["---", *lines, "---"])


def _title(record: Mapping[str, Any]) -> str:
    name = _section(record["protocol"], "source").get("name")
    kind = {"tokenizer": "Image tokenizer", "prior": "Prior over image tokens"}
    title = kind.get(record["kind"], record["kind"])
    return f"{_plain(name)}: {title.lower()}" if name else title


def _facts(record: Mapping[str, Any], num_parameters: int) -> Iterator[tuple[str, str]]:
    yield "Kind", record["kind"]
    yield "Parameters", f"{num_parameters:,}"
    try:
        if record["kind"] == "tokenizer":
            yield from _tokenizer_facts(record["model"])
        elif record["kind"] == "prior":
            yield from _prior_facts(record["model"])
    except UserError as error:  # a bundle can be written that no model can be built of
        yield "Model", f"cannot be built: {error}"
    yield "Fingerprint", f"`{record['fingerprint']}`"
    yield "Licence", licence_of(record["protocol"])


def _tokenizer_facts(model: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    tokenizer = build_tokenizer(model)
    sizes, factor = tokenizer.codebook_sizes, tokenizer.factor
    yield "Pixels a position", f"{factor} x {factor}"
    yield "Indices a position", str(len(sizes))
    yield "Codebook", " x ".join(f"{size:,}" for size in sizes)
    yield "Bits a position", f"{tokenizer.bits_per_position:g}"
    for key, name in (("quantizer", "Quantizer"), ("decoder_norm", "Decoder's norm")):
        if key in model:
            yield name, str(model[key]["name"])


def _prior_facts(model: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    lacking = [key for key in ("prior", "tokens") if key not in model]
    if lacking:
        raise UserError(f"it lacks {', '.join(lacking)}")
    tokens, prior = Tokens.of(model["tokens"]), _section(model, "prior")
    height, width = tokens.grid
    bits = tokens.num_positions * sum(map(math.log2, tokens.codebook_sizes))
    yield "Draws", _plain(prior.get("name", UNKNOWN))
    yield "Grid", f"{height} x {width} positions of {tokens.num_channels} indices"
    yield "Codebook", " x ".join(f"{size:,}" for size in tokens.codebook_sizes)
    yield "Bits an image", f"{bits:,.0f}"
    yield "Classes", _plain(prior.get("num_classes") or "none")
    yield "Tokenizer", f"`{model['tokens'].get('fingerprint', UNKNOWN)}`"


def _usage(kind: str, place: str) -> str:
    lines = ["import movq_jax", ""]
    if kind == "prior":
        lines += [
            f"prior = movq_jax.load({json.dumps(place)})",
            "images = prior.tokenizer.decode(prior.sample(16))  # uint8 [16, H, W, 3]",
        ]
    else:
        lines += [
            f"tok = movq_jax.load({json.dumps(place)})",
            "ids = tok.encode(images)  # uint8 [B, H, W, 3] -> int32 [B, h, w, M]",
            "images = tok.decode(ids)  # uint8 [B, H, W, 3]",
        ]
    return "\n".join(["```python", *lines, "```"])


def _origin(protocol: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, name in _ROWS.items():
        if protocol.get(key) is not None:
            yield name, _value(protocol[key])
    for key, value in _section(protocol, "source").items():
        if key not in ("name", "licence") and value not in (None, "", {}, []):
            yield f"Source: {_plain(key)}", _value(value)


def _metrics(protocol: Mapping[str, Any]) -> str:
    metrics = _section(protocol, "metrics")
    if not metrics:
        return "Nothing was measured when the bundle was written: see `movq evaluate`."
    rows = ((_plain(name), _value(value)) for name, value in metrics.items())
    return _table(rows, ("Metric", "Value"))


def _section(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A part of a record that a person may have edited."""
    part = record.get(key)
    return part if isinstance(part, Mapping) else {}


def _table(rows: Iterator[tuple[str, str]], head: tuple[str, str] = ("", "")) -> str:
    lines = [f"| {name} | {value} |" for name, value in rows]
    if not lines:
        return "Nothing is recorded."
    return "\n".join([f"| {head[0]} | {head[1]} |", "| --- | --- |", *lines])


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return "; ".join(f"{_plain(k)}: {_value(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_value, value))
    return _plain(value)


def _plain(value: Any) -> str:
    """Text that stays in its cell of a table."""
    text = " ".join(str(value).split())
    return re.sub(r"([|\\`<>\[\]])", r"\\\1", text)

"""How large a model is: parameters, indices, bits, FLOPs, memory.

    movq describe --config=configs/movq_imagenet.py
    movq describe --config=movq_f8:270m --config.train.remat_levels=(0,1)
    movq describe --model=runs/a
    movq describe --config=configs/maskgit_movq_imagenet.py

Nothing is trained, and no weights and no accelerator are needed. FLOPs are counted, 2
for each multiply-add of convolutions and matrix products; `movq_jax.flops` tells what
is left out. Of R1 that only each n-th step has, an n-th is counted. Of a prior the
work is that on indices, without its tokenizer's.

    movq describe --config=movq_imagenet --device-memory=24

also looks for the largest training batch whose program takes at most 24 GB (of 10^9
bytes) on each device, as the compiler of this backend says. It compiles several sizes,
which takes minutes for a large model; jax must be allowed to use that much memory
($XLA_PYTHON_CLIENT_MEM_FRACTION is 0.75 of a GPU's by default).
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import movq_jax
from movq_jax.config import kind_of, load_config, split_overrides
from movq_jax.errors import UserError
from movq_jax.tools import command

_DEFAULT_IMAGE_SIZE = 256  # of a bundle, which does not say


def main(argv: Sequence[str] | None = None) -> None:
    """Describe what the flags name; print or write it.

    Raises:
        UserError: flags or config are wrong, or no batch fits.
    """
    words, overrides = split_overrides(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(words)
    if (args.config is None) == (args.model is None):
        raise UserError(
            "give either --config=configs/movq_photos.py, or another config, or "
            "--model with a run's folder"
        )
    if args.model is not None and (overrides or args.device_memory):
        wrong = overrides[0] if overrides else "--device-memory"
        raise UserError(f"{wrong} needs --config: a model's folder tells no training")
    if args.config is None:
        record = describe_bundle(args.model, args.image_size)
    else:
        if args.image_size:
            overrides.append(f"data.image_size={args.image_size}")
        config = load_config(args.config, overrides)
        record = describe_config(config, args.config, args.device_memory)
    stream = command.human_stream(args.json)
    print("\n".join(_table(record)), file=stream)
    command.emit_json(record, args.json)


def describe_config(
    config: Any, name: str, device_memory: float | None = None
) -> dict[str, Any]:
    """Return all that a config says.

    Args:
        config: a ConfigDict.
        name: what the config is called.
        device_memory: GB of a device, to look for the largest batch.

    Raises:
        UserError: the config is one that training refuses, or no batch fits.
    """
    # Only now: jax takes a second to import, which --help need not wait for.
    from movq_jax.measuring import programs, sizes

    if kind_of(config) == "prior":
        return _describe_prior(config, name, device_memory)
    programs.check_config(config)
    record = sizes.describe_model(config.model, config.data.image_size)
    training = sizes.describe_training(config)
    record = {
        **_header(),
        "config": name,
        **record,
        **training,
        "parameters": record["parameters"] | training["parameters"],
        "flops": record["flops"]
        | training["flops"]
        | {"train_step": training["train_step"]},
    }
    del record["train_step"]
    if device_memory:
        record["device_memory"] = _largest_batch(config, device_memory)
    return record


def _describe_prior(
    config: Any, name: str, device_memory: float | None
) -> dict[str, Any]:
    from movq_jax.measuring import prior_programs, prior_sizes

    config = prior_programs.settle(config)
    record = {**_header(), "config": name, **prior_sizes.describe_prior(config)}
    if device_memory:
        record["device_memory"] = _largest_batch(config, device_memory)
    return record


def describe_bundle(path: str, image_size: int | None) -> dict[str, Any]:
    """Return what the model bundle at `path` says."""
    from movq_jax.measuring import sizes
    from movq_jax.models.tokenizer import build_tokenizer
    from movq_jax.pretrained.bundle import read_bundle

    bundle = read_bundle(path)
    if bundle.kind == "prior":
        return _describe_prior_bundle(path, image_size)
    if bundle.kind != "tokenizer":
        raise UserError(f"the model in {path} is a {bundle.kind}, not a tokenizer")
    if image_size is None:
        factor = build_tokenizer(bundle.model).factor
        image_size = -(-_DEFAULT_IMAGE_SIZE // factor) * factor
    return {
        **_header(),
        "model": {"path": path, "fingerprint": bundle.fingerprint},
        **sizes.describe_model(bundle.model, image_size),
    }


def _describe_prior_bundle(path: str, image_size: int | None) -> dict[str, Any]:
    from movq_jax.measuring import prior_programs, prior_sizes
    from movq_jax.pretrained.prior_bundle import read_prior_bundle

    if image_size is not None:
        raise UserError(
            f"the model in {path} is a prior, which draws images of one size: leave "
            "out --image-size"
        )
    bundle = read_prior_bundle(path)
    config = prior_programs.config_of(bundle.prior, bundle.tokenizer)
    record = prior_sizes.describe_prior(config)
    del record["state_bytes"], record["flops"]["train_step"]  # nothing tells of those
    fingerprint = bundle.prior.fingerprint
    return {**_header(), "model": {"path": path, "fingerprint": fingerprint}, **record}


def _header() -> dict[str, Any]:
    return {"tool": "describe", "version": movq_jax.__version__}


def _largest_batch(config: Any, gigabytes: float) -> dict[str, Any]:
    import jax

    from movq_jax import compilation_cache
    from movq_jax.measuring import memory
    from movq_jax.training import sharding

    compilation_cache.enable()
    mesh = sharding.make_mesh()
    device = jax.devices()[0]

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    say(f"looking for the largest batch of {mesh.size} x {device.device_kind}")
    found = memory.largest_batch(config, round(gigabytes * memory.GIGABYTE), mesh, say)
    return {
        "gigabytes": gigabytes,
        "device": device.device_kind,
        "platform": device.platform,
        "devices": mesh.size,
        "jax": jax.__version__,
        "accumulation": config.train.accumulation,
        **{k: config.train[k] for k in ("remat", "remat_levels") if k in config.train},
        **found,
    }


def _table(record: dict[str, Any]) -> Iterator[str]:
    """Yield the lines for people."""
    yield record.get("config") or record["model"]["path"]
    yield from (_prior_lines if "sample_calls" in record else _tokenizer_lines)(record)
    if "state_bytes" in record:
        yield "\n  memory of the state in MB"
        for name, count in record["state_bytes"].items():
            yield f"  {name.replace('_', ' '):<18}{count / 1e6:>16,.1f}"
    if "device_memory" in record:
        yield from _memory_lines(record["device_memory"])


def _prior_lines(record: dict[str, Any]) -> Iterator[str]:
    height, width, channels = record["grid"]
    books = " x ".join(f"{size:,}" for size in record["codebook_sizes"])
    yield (
        f"  {height}x{width}x{channels} indices of {books}: "
        f"{record['tokens_per_image']:,} tokens, {record['bits_per_image']:,.0f} bits "
        f"an image; {record['classes'] or 'no'} classes"
    )
    yield "\n                          parameters"
    for name, count in record["parameters"].items():
        yield f"  {name:<18}{count:>16,}"
    flops, calls = record["flops"], record["sample_calls"]
    yield "\n                      GFLOP an image"
    yield f"  one pass          {_giga(flops['forward']):>16}"
    if "train_step" in flops:
        yield f"  training step     {_giga(flops['train_step']):>16}"
    yield f"  drawing           {_giga(flops['sample']):>16}   in {calls:,} steps"


def _tokenizer_lines(record: dict[str, Any]) -> Iterator[str]:
    size = record["image_size"]
    height, width, channels = record["grid"]
    yield (
        f"  {size}x{size} pixels -> {height}x{width}x{channels} indices of "
        f"{record['codebook_size']:,}: {record['tokens_per_image']:,} tokens"
    )
    yield (
        f"  {record['bits_per_image']:,.0f} bits an image, "
        f"{record['bits_per_position']:g} a position, "
        f"{record['bits_per_pixel']:.4g} a pixel: 1/{record['compression_ratio']:.4g} "
        "of the raw pixels"
    )
    flops = record["flops"]
    yield "\n                          parameters   GFLOP an image"
    for name, count in record["parameters"].items():
        work = f"{_giga(flops[name]):>17}" if name in flops else ""
        yield f"  {name:<18}{count:>16,}{work}"
    for name in ("encode", "decode"):
        yield f"  {name:<18}{'':16}{_giga(flops[name]):>17}"
    for phase, work in flops.get("train_step", {}).items():
        yield f"  training step, {phase:<19}{_giga(work):>17}"
    if "perceptual" in flops:
        yield "  (perceptual: of a pair of images)"


def _giga(flops: int) -> str:
    return f"{flops / 1e9:,.1f}" if flops >= 1e10 else f"{flops / 1e9:.3g}"


def _memory_lines(found: dict[str, Any]) -> Iterator[str]:
    yield (
        f"\n  largest training batch in {found['gigabytes']:g} GB a device: "
        f"{found['batch_size']:,} images ({found['bytes'] / 1e9:.3g} GB a device, "
        f"phase {found['phase']})"
    )
    yield (
        f"  as the compiler says for {found['devices']} x {found['device']} "
        f"({found['platform']}, jax {found['jax']}); others may need more or less"
    )


def _parser() -> command.ArgumentParser:
    parser = command.ArgumentParser(prog="movq describe", description=__doc__)
    parser.add_argument(
        "--config", help="a config; --config.model.width=64 overrides a key of it"
    )
    parser.add_argument("--model", help="a run's folder, or the model folder in it")
    parser.add_argument(
        "--image-size",
        type=command.positive_int,
        metavar="N",
        help="side of the images (default: the config's, or 256)",
    )
    parser.add_argument(
        "--device-memory",
        type=command.positive_number,
        metavar="GB",
        help="look for the largest training batch in so much memory of each device",
    )
    command.add_json_flag(parser)
    return parser


if __name__ == "__main__":
    sys.exit(command.run(main))

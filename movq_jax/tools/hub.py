"""Models to and from the Hugging Face Hub.

    movq hub upload --model=runs/a --repo=USER/NAME --licence=apache-2.0
    movq hub download --repo=USER/NAME --out=models/name
    movq reconstruct --model=hf://USER/NAME --input=photos/ --output=out/

Needs the package huggingface_hub: pip install 'movq_jax[hub]'. To upload, log in with
`hf auth login` first, or set $HF_TOKEN.

A repository holds what a run's `model` folder holds, with the model card as its page.
An upload is one commit; what the repository had before stays in its history. Every tool
takes hf://USER/NAME, or hf://USER/NAME@REVISION, as its --model; download is for a copy
in a folder of your own.
"""

import sys
from collections.abc import Sequence

import movq_jax
from movq_jax.errors import UserError
from movq_jax.tools import command

_NEEDED = {"upload": ("model", "repo"), "download": ("repo", "out")}
_OF_ONE = {"upload": ("model", "private", "licence"), "download": ("out", "revision")}


def main(argv: Sequence[str] | None = None) -> None:
    """Upload or download what the flags name, and say what it was.

    Raises:
        UserError: flags are wrong, there is no such model or repository, the package
            is missing, or the Hub refuses.
    """
    args = _parser().parse_args(argv)
    _check(args)
    # Only now: flags are read without waiting for jax.
    from movq_jax.pretrained import hub

    record = {"tool": "hub", "version": movq_jax.__version__, "action": args.action}
    if args.action == "upload":
        done = hub.upload(
            args.model, args.repo, private=args.private, licence=args.licence or ""
        )
        record |= {"model": args.model, "repo": args.repo, **done._asdict()}
        text = f"{args.model} -> hf://{args.repo}, {done.url}"
    else:
        bundle = hub.download(args.repo, args.out, args.revision)
        record |= {"repo": args.repo, "revision": args.revision, "out": args.out}
        record |= {"kind": bundle.kind, "fingerprint": bundle.fingerprint}
        text = f"hf://{args.repo} -> {args.out}, a {bundle.kind}"
    command.emit_json(record, args.json)
    stream = command.human_stream(args.json)
    print(f"{text}, fingerprint {record['fingerprint'][:12]}", file=stream)


def _check(args) -> None:
    for name in _NEEDED[args.action]:
        if getattr(args, name) is None:
            raise UserError(f"movq hub {args.action} needs --{name}")
    other = next(action for action in _OF_ONE if action != args.action)
    for name in _OF_ONE[other]:
        if getattr(args, name):
            raise UserError(
                f"--{name} is for movq hub {other}, not for movq hub {args.action}"
            )


def _parser() -> command.ArgumentParser:
    parser = command.ArgumentParser(prog="movq hub", description=__doc__)
    parser.add_argument("action", choices=tuple(_NEEDED))
    parser.add_argument("--repo", metavar="USER/NAME", help="the repository")
    parser.add_argument("--model", help="upload: a run's folder, or the model folder")
    parser.add_argument(
        "--private",
        action="store_true",
        help="upload: a new repository is for its owner alone",
    )
    parser.add_argument(
        "--licence",
        metavar="NAME",
        help="upload: of the weights, as in apache-2.0 (default: what the model says, "
        "else unknown)",
    )
    parser.add_argument(
        "--revision", help="download: a branch, tag or commit (default: main)"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="download: where to; a folder that is not there"
    )
    command.add_json_flag(parser)
    return parser


if __name__ == "__main__":
    sys.exit(command.run(main))

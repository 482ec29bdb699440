"""The flags of `movq edit`: one parser for each kind of edit."""

import argparse
from collections.abc import Callable, Sequence

from movq_jax.errors import UserError
from movq_jax.tools import command, feeding, sampling_flags
from movq_jax.tools.edit_masks import ALPHA, parse_box

BLEND = 8  # pixels
KEEP_VARIED, KEEP_FIGURE, STEPS_FIGURE = 0.5, 0.05, 8
MAX_PIXELS = 2**16  # beyond which no flag in pixels or tokens makes sense


def parse(argv: Sequence[str], description: str) -> argparse.Namespace:
    """Return the flags; `args.edit` is the kind of edit, the first word of `argv`.

    Raises:
        UserError: there is no such edit, or a flag is wrong.
    """
    word = argv[0] if argv else "--help"
    if word in ("-h", "--help"):
        top = command.ArgumentParser(
            prog="movq edit",
            usage=f"movq edit {{{','.join(EDITS)}}} ...",
            description=description,
        )
        top.parse_args(["--help"])
    if word not in EDITS:
        hint = command.did_you_mean(word, EDITS)
        raise UserError(
            f"movq edit has no {word!r}{hint}: the first word is one of "
            f"{', '.join(EDITS)}"
        )
    about, add = EDITS[word]
    parser = command.ArgumentParser(prog=f"movq edit {word}", description=about)
    _add_common(parser)
    add(parser)
    args = parser.parse_args(argv[1:])
    args.edit = word
    if word == "outpaint" and not (args.left or args.right or args.top or args.bottom):
        parser.error("nothing to add: give --left, --right, --top or --bottom")
    return args


def _add_common(parser: argparse.ArgumentParser) -> None:
    sampling_flags.add_model_flags(parser)
    feeding.add_input_flags(parser, "pictures")
    parser.add_argument("--output", required=True, help="the folder to write to")
    parser.add_argument(
        "--num",
        type=command.positive_int,
        default=1,
        help="results a picture, or a picture and class (default: %(default)s)",
    )
    parser.add_argument(
        "--classes",
        metavar="A,B",
        help="classes by name or number, to each of which there are --num results "
        "(default: no class)",
    )
    parser.add_argument(
        "--overview",
        type=command.positive_int,
        default=24,
        help="pictures on the overview at most (default: %(default)s)",
    )
    command.add_json_flag(parser)
    sampling_flags.add_flags(parser)


def _add_inpaint(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--mask",
        metavar="PNG",
        help="a picture of the same size: what is white is filled, or, where it has "
        f"transparency, what is transparent; `{ALPHA}`: what is transparent in the "
        "pictures themselves",
    )
    where.add_argument(
        "--box",
        type=parse_box,
        action="append",
        metavar="X0,Y0,X1,Y1",
        help="fill these pixels, X1 and Y1 not included; may be given several times",
    )
    _add_seam(parser)


def _add_outpaint(parser: argparse.ArgumentParser) -> None:
    for side in ("left", "right", "top", "bottom"):
        parser.add_argument(
            f"--{side}",
            type=_pixels,
            default=0,
            metavar="PIXELS",
            help=f"what to add at the {side} (default: 0)",
        )
    _add_seam(parser)


def _add_seam(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--blend",
        type=_pixels,
        default=BLEND,
        metavar="PIXELS",
        help="over how many pixels the seam fades, inside what is filled; 0: a hard "
        "seam (default: %(default)s)",
    )
    parser.add_argument(
        "--margin",
        type=_pixels,
        default=0,
        metavar="TOKENS",
        help="draw also so many tokens around what is filled (default: 0)",
    )


def _add_variations(parser: argparse.ArgumentParser) -> None:
    _add_keep(parser, KEEP_VARIED)


def _add_reconstruct(parser: argparse.ArgumentParser) -> None:
    _add_keep(parser, KEEP_FIGURE)
    parser.set_defaults(steps=STEPS_FIGURE)


def _add_keep(parser: argparse.ArgumentParser, default: float) -> None:
    parser.add_argument(
        "--keep",
        type=_share,
        default=default,
        metavar="SHARE",
        help="of the tokens, chosen at random by the seed, 0 to 1 "
        "(default: %(default)s)",
    )


def _pixels(text: str) -> int:
    if not text.isdecimal() or int(text) > MAX_PIXELS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a whole number from 0 to {MAX_PIXELS}"
        )
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")
    return share


EDITS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "inpaint": (
        "Fill a part of pictures anew; all other pixels stay exactly as they are.",
        _add_inpaint,
    ),
    "outpaint": (
        "Continue pictures beyond their edges; their own pixels stay exactly as they "
        "are.",
        _add_outpaint,
    ),
    "variations": (
        "Keep a random share of a picture's tokens and draw the others.",
        _add_variations,
    ),
    "reconstruct": (
        "Make pictures again from a few of their tokens: at once by the likeliest "
        f"index\neverywhere, and drawn in {STEPS_FIGURE} steps.",
        _add_reconstruct,
    ),
}

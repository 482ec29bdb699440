"""Pictures changed by a masked prior.

    movq edit inpaint --model=runs/p --input=a.png --mask=hole.png --output=out/
    movq edit inpaint --model=runs/p --input=a.png --box=64,64,128,128 --output=out/
    movq edit outpaint --model=runs/p --input=a.png --left=100 --output=out/
    movq edit variations --model=runs/p --input=photos/ --keep=0.3 --output=out/
    movq edit reconstruct --model=runs/p --input=photos/ --keep=0.05 --output=out/

`movq edit inpaint --help` shows the flags of one of them. Each writes
`results/<name>/<number>.png`, `overview.png` and `edit.json`. Pictures may have any
size: a prior that was trained on smaller ones works through windows of its own size
that overlap by half. In `inpaint` and `outpaint` the pixels that were not to change are
exactly as they were.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from movq_jax.errors import UserError
from movq_jax.progress import Progress
from movq_jax.tools import command, edit_flags, sampling_flags
from movq_jax.tools.edit_masks import ALPHA, Masks, masks_of
from movq_jax.tools.edit_results import (
    make_record,
    outputs_of,
    panels_of,
    picture_record,
    save,
    variants_of,
)
from movq_jax.tools.edit_sheets import Overview
from movq_jax.tools.edit_work import Edited, Editor, Margins
from movq_jax.tools.feeding import (
    Refusals,
    is_out_of_memory,
    read_images,
    too_large,
)
from movq_jax.tools.files import (
    InputFile,
    check_places,
    find_files,
    output_folder,
    refuse_overwriting,
    write_png,
)

MICRO_BATCH = 8  # at most, unless asked for more
_ADVICE = "make it smaller, lower --num, or use another device"

# A picture, its file and its number -> what became of it.
Edit = Callable[[np.ndarray, InputFile, int], Edited]


class _Strict(Refusals):
    """Refusals that make an error of the only file there is."""

    def add(self, file: object, reason: str, progress: Progress) -> None:
        if self.total == 1:
            raise UserError(reason)
        super().add(file, reason, progress)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        UserError: a flag or a path is wrong, or no picture could be used.
        InputsRefused: some pictures could not be used; the others are done.
    """
    args = edit_flags.parse(sys.argv[1:] if argv is None else argv, __doc__)
    output = output_folder(args.output)
    files = _without_mask(find_files(args.input, output=output), args)
    check_places([output / "edit.json"])
    masks = masks_of(args.mask, args.box) if args.edit == "inpaint" else Masks()
    editor = make_editor(args, load(args))
    outputs = list(outputs_of(args, output, files, editor.variants))
    refuse_overwriting(outputs, inputs=files)
    check_places(outputs)
    edit = edit_of(args, editor, masks)

    refusals = _Strict(total=len(files))
    overview, done = Overview(args.overview), {}
    with Progress(len(files), "pictures") as progress:
        for index, image, result in edit_all(args, files, edit, refusals, progress):
            save(output, files[index], editor.variants, result)
            overview.add(files[index].name, panels_of(editor.variants, result))
            done[index] = picture_record(
                files[index], image, editor.variants, result, output
            )
            progress.advance()
    if not done:
        raise UserError(f"none of the {len(files)} pictures could be used, see above")
    write_png(output / "overview.png", overview.draw())
    record = make_record(args, editor, list(done.values()), refusals)
    command.emit_json(record, str(output / "edit.json"))
    command.emit_json(record, args.json)
    many = "1 picture" if len(done) == 1 else f"{len(done)} pictures"
    text = f"wrote {len(editor.variants)} of each of {many} to {output}"
    print(text, file=command.human_stream(args.json))
    refusals.raise_if_any()


def _without_mask(
    files: Sequence[InputFile], args: argparse.Namespace
) -> list[InputFile]:
    """Leave out the mask where it lies among the pictures."""
    mask = getattr(args, "mask", None)
    if mask in (None, ALPHA):
        return list(files)
    place = Path(mask).expanduser().resolve()
    rest = [file for file in files if file.path.resolve() != place]
    if not rest:
        raise UserError(f"--input is the mask {mask} alone: give the picture to fill")
    return rest


def load(args: argparse.Namespace) -> Any:
    """Return the prior of `--model`.

    Raises:
        UserError: it is not a masked one.
    """
    # All results of a picture at once; more rows would be of no use.
    several = args.num * (args.classes or "").count(",") + args.num
    micro_batch = args.micro_batch or min(several, MICRO_BATCH)
    prior = sampling_flags.load_prior(args.model, micro_batch)
    if prior.kind != "masked":
        raise UserError(
            f"the prior in {args.model} is {prior.kind}: it draws row after row and "
            "cannot fill holes; `movq complete` draws the lower part of pictures anew"
        )
    return prior


def make_editor(args: argparse.Namespace, prior: Any) -> Editor:
    """Return the editor that the flags describe.

    Raises:
        UserError: the prior has no use for one of them, or has no such class.
    """
    options = sampling_flags.options(args)
    sampling_flags.check_options(prior, options)
    sampling_flags.without_classes(prior, args.classes, options)
    return Editor(
        prior,
        variants_of(args, prior),
        seed=args.seed,
        options=options,
        margin=getattr(args, "margin", 0),
        blend=getattr(args, "blend", 0),
    )


def edit_of(args: argparse.Namespace, editor: Editor, masks: Masks) -> Edit:
    """Return the edit that was asked for.

    It raises a UserError where a picture cannot be edited so.
    """

    def inpaint(image: np.ndarray, file: InputFile, number: int) -> Edited:
        return editor.inpaint(image, masks.of(file.path, image.shape[:2]), number)

    def outpaint(image: np.ndarray, file: InputFile, number: int) -> Edited:
        margins = Margins(args.left, args.right, args.top, args.bottom)
        height, width = margins.size(*image.shape[:2])
        if max(height, width) > args.max_side:
            raise UserError(
                f"{file.path} would become {width} x {height}, above "
                f"--max-side={args.max_side}: add less, or raise --max-side"
            )
        return editor.outpaint(image, margins, number)

    def variations(image: np.ndarray, file: InputFile, number: int) -> Edited:
        return editor.variations(image, args.keep, number)

    def reconstruct(image: np.ndarray, file: InputFile, number: int) -> Edited:
        return editor.reconstruct(image, args.keep, number)

    edits = (inpaint, outpaint, variations, reconstruct)
    return {edit.__name__: edit for edit in edits}[args.edit]


def edit_all(
    args: argparse.Namespace,
    files: Sequence[InputFile],
    edit: Edit,
    refusals: Refusals,
    progress: Progress,
) -> Iterator[tuple[int, np.ndarray, Edited]]:
    """Yield (number, picture, what became of it); what cannot be used is refused."""
    images = read_images(
        files, max_side=args.max_side, refusals=refusals, progress=progress
    )
    for index, image in images:
        path = files[index].path
        try:
            result = edit(image, files[index], index)
        except UserError as error:
            refusals.add(path, str(error), progress)
            continue
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            why = too_large(image.shape[:2], 1, _ADVICE)
            refusals.add(path, f"{path}: {why}", progress)
            continue
        if args.edit == "inpaint" and result.untouched:
            progress.note(f"{path}: nothing is masked, it comes back untouched")
        elif args.edit == "inpaint" and result.unknown == result.tokens:
            progress.note(f"{path}: all of it is masked, so nothing of it is kept")
        yield index, image, result


if __name__ == "__main__":
    sys.exit(command.run(main))

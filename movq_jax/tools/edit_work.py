"""The four edits of `movq edit`: a picture and a prior in, pictures out."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt8

from movq_jax.data.padding import crop_back, pad_to_multiple
from movq_jax.evaluation.pictures import psnr_caption
from movq_jax.progress import Progress
from movq_jax.sampling import editing
from movq_jax.sampling.windows import complete_grid, plan_windows

Picture = UInt8[np.ndarray, "H W 3"]
Panel = tuple[str, np.ndarray, str]  # a title, what is shown under it, a caption
# The likeliest index everywhere, at once.
TOP_1 = {"steps": 1, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "guidance": 0.0}


@dataclasses.dataclass(frozen=True)
class Variant:
    """One of the results that each picture gets."""

    title: str
    stem: str  # of its file
    label: int | None = None  # its class; None: none


@dataclasses.dataclass(frozen=True)
class Edited:
    """What became of a picture."""

    results: list[np.ndarray]  # uint8 [H, W, 3], in the order of the variants
    panels: list[Panel]  # for the overview, without the results
    unknown: int  # tokens that were drawn
    tokens: int  # of the picture or the canvas
    windows: int = 0
    captions: list[str] | None = None  # below the results on the overview
    extra: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)  # by stem

    @property
    def untouched(self) -> bool:
        """Whether there was nothing to do."""
        return self.unknown == 0


@dataclasses.dataclass(frozen=True)
class Margins:
    """By how many pixels a picture grows."""

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return what (height, width) grow to."""
        return height + self.top + self.bottom, width + self.left + self.right


class Editor:
    """Edits pictures of any size with a masked prior.

    The result of a picture is a function of the picture, its number, the seed and the
    options: not of the pictures beside it.
    """

    def __init__(
        self,
        prior: Any,
        variants: list[Variant],
        *,
        seed: int = 0,
        options: dict[str, Any] | None = None,
        margin: int = 0,
        blend: int = 0,
    ) -> None:
        """Take what all pictures share.

        Args:
            prior: what `movq_jax.load` returns.
            variants: of each picture.
            seed: from which all chance comes.
            options: for `prior.sample`.
            margin: tokens around the mask that are drawn anew as well.
            blend: pixels over which the seam fades, inside the mask.
        """
        self.prior, self.tok = prior, prior.tokenizer
        self.factor = self.tok.factor
        self.variants, self.seed = variants, seed
        self.options = dict(options or {})
        self.margin, self.blend = margin, blend

    def inpaint(
        self, image: Picture, mask: Bool[np.ndarray, "H W"], number: int = 0
    ) -> Edited:
        """Fill the mask of a picture. Pixels outside of it stay exact."""
        size = image.shape[:2]
        whole = pad_to_multiple(editing.fill_holes(image, mask), self.factor)
        unknown = editing.unknown_tokens(
            _padded(mask, whole.shape[:2]), self.factor, self.margin
        )
        shown = editing.checkered(image, mask)
        panels = [("original", image, ""), ("input", shown, "")]
        if not mask.any():
            results = [image.copy() for _ in self.variants]
            return Edited(results, panels, 0, unknown.size)
        ids = self.tok.encode(whole[None])[0]
        made, windows = self._complete(ids, unknown, number)
        results = [
            editing.composite(image, crop_back(one, *size), mask, self.blend)
            for one in self._decode(made)
        ]
        return Edited(results, panels, int(unknown.sum()), unknown.size, windows)

    def outpaint(self, image: Picture, margins: Margins, number: int = 0) -> Edited:
        """Continue a picture beyond its edges. Its own pixels stay exact.

        Its tokens are those it has alone: the canvas begins a multiple of the factor
        before it, and what that is too much is cut off.
        """
        ids, mask = self._canvas(image, margins)
        unknown = editing.unknown_tokens(mask, self.factor, self.margin)
        made, windows = self._complete(ids, unknown, number)
        top, left = -margins.top % self.factor, -margins.left % self.factor
        height, width = margins.size(*image.shape[:2])
        here = (slice(top, top + height), slice(left, left + width))
        beyond = np.ones((height, width), bool)
        canvas = np.zeros((height, width, 3), np.uint8)
        inside = _inside(image, margins)
        beyond[inside], canvas[inside] = False, image
        results = [
            editing.composite(canvas, one[here], beyond, self.blend)
            for one in self._decode(made)
        ]
        panels = [("input", editing.checkered(canvas, beyond), "")]
        return Edited(results, panels, int(unknown.sum()), unknown.size, windows)

    def variations(self, image: Picture, keep: float, number: int = 0) -> Edited:
        """Keep a random share of the tokens, and draw the others."""
        ids, kept = self._kept(image, keep, number)
        made, windows = self._complete(ids, ~kept, number)
        results = [crop_back(one, *image.shape[:2]) for one in self._decode(made)]
        shown = editing.tokens_shown(image, kept, self.factor)
        panels = [("original", image, ""), (_share(kept), shown, "")]
        return Edited(results, panels, int((~kept).sum()), kept.size, windows)

    def reconstruct(self, image: Picture, keep: float, number: int = 0) -> Edited:
        """Make a picture again from a share of its tokens: top-1 at once, and drawn.

        The figure of MoVQ (Zheng et al. 2022): from 5 % of the tokens, by the most
        likely index everywhere in 1 step, and sampled in 8.
        """
        size = image.shape[:2]
        ids, kept = self._kept(image, keep, number)
        made, windows = self._complete(ids, ~kept, number)
        results = [crop_back(one, *size) for one in self._decode(made)]
        first = self.variants[:1]
        likely, _ = self._complete(ids, ~kept, number, first, **TOP_1)
        at_once = crop_back(self._decode(likely)[0], *size)
        shown = editing.tokens_shown(image, kept, self.factor)
        panels = [
            ("original", image, ""),
            (_share(kept), shown, ""),
            ("1 step, top-1", at_once, psnr_caption(image, at_once)),
        ]
        captions = [psnr_caption(image, result) for result in results]
        extra = {"kept": shown, "top1": at_once}
        unknown = int((~kept).sum())
        return Edited(results, panels, unknown, kept.size, windows, captions, extra)

    def _canvas(
        self, image: Picture, margins: Margins
    ) -> tuple[Int[np.ndarray, "h w M"], Bool[np.ndarray, "Y X"]]:
        """Return a grid with the picture's ids, and what of it is to be filled."""
        factor = self.factor
        height, width = image.shape[:2]
        top, left = (-(-m // factor) for m in (margins.top, margins.left))
        own = self.tok.encode(pad_to_multiple(image, factor)[None])[0]
        # Towards an edge that stays, the repeated pixels belong to the picture.
        end = None if not margins.bottom else top * factor + height
        right = None if not margins.right else left * factor + width
        rows = top + max(own.shape[0], -(-(height + margins.bottom) // factor))
        columns = left + max(own.shape[1], -(-(width + margins.right) // factor))
        ids = np.zeros((rows, columns, own.shape[2]), own.dtype)
        ids[top : top + own.shape[0], left : left + own.shape[1]] = own
        mask = np.ones((rows * factor, columns * factor), bool)
        mask[top * factor : end, left * factor : right] = False
        return ids, mask

    def _kept(
        self, image: Picture, keep: float, number: int
    ) -> tuple[Int[np.ndarray, "h w M"], Bool[np.ndarray, "h w"]]:
        ids = self.tok.encode(pad_to_multiple(image, self.factor)[None])[0]
        rng = np.random.default_rng([self.seed, number])
        return ids, editing.random_tokens(ids.shape[:2], keep, rng)

    def _complete(
        self,
        ids: Int[np.ndarray, "h w M"],
        unknown: Bool[np.ndarray, "h w"],
        number: int,
        variants: list[Variant] | None = None,
        **options: Any,
    ) -> tuple[Int[np.ndarray, "V h w M"], int]:
        """Draw what is unknown, once a variant; return the grids and the windows."""
        variants = self.variants if variants is None else variants
        plan = plan_windows(unknown, self.prior.grid)
        grids = np.repeat(ids[None], len(variants), axis=0)
        with Progress(len(plan), "windows") as progress:

            def sample(turn: int, ids: np.ndarray, known: np.ndarray) -> np.ndarray:
                drawn = self.prior.sample(
                    len(ids),
                    labels=self._labels(variants),
                    seed=window_seed(self.seed, turn),
                    first=number * len(self.variants),
                    ids=ids,
                    known=np.broadcast_to(known[None, :, :, None], ids.shape),
                    **(self.options | options),
                )
                if len(plan) > 1:  # a single one is told of as a picture
                    progress.advance()
                return drawn

            done = complete_grid(sample, grids, unknown, self.prior.grid, plan)
        return done, len(plan)

    def _labels(self, variants: list[Variant]) -> np.ndarray | None:
        """Return int32 [V]; the number after the last class stands for none."""
        none = self.prior.num_classes
        if not none:
            return None
        return np.array([none if v.label is None else v.label for v in variants])

    def _decode(self, ids: Int[np.ndarray, "V h w M"]) -> UInt8[np.ndarray, "V H W 3"]:
        return self.tok.decode(ids)


def window_seed(seed: int, turn: int) -> int:
    """Return the seed of a window; the first has the given one.

    So a picture that is unknown as a whole, and as large as the prior's own, becomes
    what `prior.sample` draws with that seed.
    """
    if turn == 0:
        return seed
    return int(np.random.SeedSequence([seed, turn]).generate_state(1)[0])


def _share(kept: Bool[np.ndarray, "h w"]) -> str:
    return f"{kept.mean():.1%} of the tokens"


def _inside(image: Picture, margins: Margins) -> tuple[slice, slice]:
    height, width = image.shape[:2]
    return (
        slice(margins.top, margins.top + height),
        slice(margins.left, margins.left + width),
    )


def _padded(
    mask: Bool[np.ndarray, "H W"], size: tuple[int, int]
) -> Bool[np.ndarray, "h w"]:
    """Continue a mask to `size`: pixels that repeat an edge are no holes."""
    below, right = size[0] - mask.shape[0], size[1] - mask.shape[1]
    return np.pad(mask, ((0, below), (0, right)))

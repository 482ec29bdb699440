"""A small masked prior over the indices of `movq_photos`, of a handful of photographs.

Not a paper's experiment: the demo of stage 2, on a CPU and without a download. Trains
the tokenizer of configs/movq_photos.py first, into WORKDIR/tokenizer (or takes the one
of --config.tokenizer), then MaskGIT's prior (2202.04200) with a depth head over the 4
channels: what it learns from are random crops of 32² pixels, encoded at each step, on
8x8 positions. So its samples are textures, not scenes.

    python -m movq_jax.tools.prepare --dataset=photos
    python -m movq_jax.main --config=configs/maskgit_photos.py
    python -m movq_jax.tools.sample --model=runs/maskgit_photos --output=samples

Number to reach: 4.8 bits an index on the held-out photographs, where 8 would be to know
nothing. Cost: 9 minutes on 2 CPU cores, after the 8 of the tokenizer.
Arguments: `parallel` or `independent` (the other ways to model channels, see
`prior_schema.masked`), `tiny` (seconds, to see that everything runs).
"""

from ml_collections import ConfigDict

from movq_jax.config import choose_one, prior_schema, read_arg


def get_config(arg: str = "") -> ConfigDict:
    """Return the config; `arg` may hold a way to model channels, and 'tiny'."""
    words = read_arg(arg, [*prior_schema.CHANNELS, "tiny"])
    config = prior_schema.few_photographs(prior_schema.prior_config())
    config.model.mlp = 512
    prior_schema.vary_channels(config, choose_one(words, prior_schema.CHANNELS))
    return prior_schema.shrink(config) if "tiny" in words else config

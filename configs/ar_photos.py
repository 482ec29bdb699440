"""A small autoregressive prior over the indices of `movq_photos`.

Not a paper's experiment: the baseline of configs/maskgit_photos.py, on a CPU and
without a download. A Llama over the 8x8 positions of crops of 32² pixels, row by row,
with a depth head over the 4 channels; or with `flat` over all 256 indices one by one,
which is how MoVQ's paper (2209.09002) counts its autoregressive baseline. Its
likelihoods are exact. Data, tokenizer and steps are those of
`prior_schema.few_photographs`.

    python -m movq_jax.tools.prepare --dataset=photos
    python -m movq_jax.main --config=configs/ar_photos.py
    python -m movq_jax.tools.sample --model=runs/ar_photos --output=samples

Number to reach: none measured yet.
Cost: not measured; minutes on a CPU, after the 8 of the tokenizer.
Arguments: `flat`, `tiny` (seconds, to see that everything runs).
"""

from ml_collections import ConfigDict

from movq_jax.config import prior_schema, read_arg


def get_config(arg: str = "") -> ConfigDict:
    """Return the config; `arg` may hold 'flat' and 'tiny'."""
    words = read_arg(arg, ["flat", "tiny"])
    config = prior_schema.autoregressive(prior_schema.prior_config())
    if "flat" in words:
        with config.unlocked():
            config.model.channels = {"name": "flat"}
    prior_schema.few_photographs(config)
    return prior_schema.shrink(config) if "tiny" in words else config

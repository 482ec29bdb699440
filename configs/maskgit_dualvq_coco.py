"""MaskGIT over Dual Codebook VQ of COCO 2014 at 256²: 16x16 positions of 2 channels.

Not a paper's experiment: the paper of the dual codebook (2503.10832) rebuilds images
and draws none. Each position has an index of the global and one of the local book, 512
codes each, with embeddings of their own; a depth head draws the global one first. DIR
holds COCO 2014, see README.

    python -m movq_jax.tools.prepare --dataset=coco/2014 --source=DIR
    python -m movq_jax.main --config=configs/dualvq_coco.py --workdir=runs/dualvq
    python -m movq_jax.main --config=configs/maskgit_dualvq_coco.py \
        --config.tokenizer=runs/dualvq

Trunk, masks and optimization are MaskGIT's (2202.04200), as in
configs/maskgit_movq_imagenet.py, with width 768. Images as for the tokenizer: shorter
side to 256, square from the middle, mirrored at random. 400,000 steps of 64 images (309
epochs), bfloat16 and clipping are choices of this project.

Number to reach: none measured yet.
Cost: 26 million images at about 0.35 TFLOP, and the tokenizer's encoder, not measured.
Arguments: `parallel`, `independent` (the other ways to model channels, see
`prior_schema.masked`), `tiny` (seconds, to see that everything runs; on `coco`, of
whichever edition is prepared).
"""

from ml_collections import ConfigDict

from movq_jax.config import choose_one, prior_schema, read_arg


def get_config(arg: str = "") -> ConfigDict:
    """Return the config; `arg` may hold a way to model channels, and 'tiny'."""
    words = read_arg(arg, [*prior_schema.CHANNELS, "tiny"])
    config = prior_schema.prior_config()
    config.tokenizer_config = "dualvq_coco"
    config.model.dtype = "bfloat16"
    config.optim.clip.gen.update(name="global_norm", value=1.0)
    config.data.dataset = "coco/2014"
    for view in (config.data.train, config.data.eval):  # as torchvision rounds
        resize = {"name": "short_side", "resample": "bilinear", "rounding": "down"}
        view.resize = resize
        view.crop = {"name": "center", "rounding": "nearest"}
    config.train.update(num_steps=400_000, batch_size=64)
    prior_schema.vary_channels(config, choose_one(words, prior_schema.CHANNELS))
    if "tiny" in words:
        prior_schema.shrink(config, "dualvq_coco:tiny", dataset="coco")
    return config

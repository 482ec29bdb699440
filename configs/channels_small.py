"""Three ways to model the channels of a position, trained alike, on photographs at 32².

Not a paper's experiment, but the question that MoVQ leaves open: nobody has published
a prior over its channels, nor any over a dual codebook's. The tokenizers are rows of
configs/quantizers_small.py, with 8x8 positions; the prior knows the classes, which are
the sub-folders of DIR.

    python -m movq_jax.tools.prepare --dataset=folder --name=pictures --source=DIR
    python -m movq_jax.main --config=configs/quantizers_small.py:multichannel
    python -m movq_jax.main --config=configs/channels_small.py:depth \
        --config.tokenizer=runs/quantizers_small-multichannel

The rows, of equally many parameters (within 2 %) and steps:

- `depth` (the default): 4 blocks, and 2 more over the channels of a position.
- `independent`: 7 blocks; each index is masked and drawn alone.
- `parallel`: 7 blocks; positions are masked as a whole.

Labels are not smoothed, so that what is reported is the likelihood that was trained.

Number to reach: on MoVQ's 4 channels 4.09, 4.47 and 4.26 bits an index, in the order of
the rows; on the dual codebook's 2 channels 7.32, 7.41 and 7.35; means of 3 seeds.
Cost: 4 to 9 minutes each on a busy CPU core; launch/compare_channels.py runs all.
Arguments: one of the rows; `tiny` (seconds, to see that everything runs).
"""

from ml_collections import ConfigDict

from movq_jax.config import choose_one, prior_schema, read_arg

ROWS = ("depth", "independent", "parallel")


def get_config(arg: str = "") -> ConfigDict:
    """Return the config; `arg` is a row, 'tiny', or both: 'parallel,tiny'."""
    words = read_arg(arg, [*ROWS, "tiny"])
    row = choose_one(words, ROWS)
    config = prior_schema.prior_config()
    config.tokenizer_config = "quantizers_small:multichannel"

    config.model.update(width=128, heads=4, mlp=512, num_classes=-1)
    config.model.depth = 4 if row == "depth" else 7
    prior_schema.vary_channels(config, row)
    if row == "depth":
        config.model.channels.depth = 2
    config.loss.label_smoothing = 0.0

    config.optim.gen.learning_rate = 1e-3
    config.optim.schedule.update(name="cosine", warmup_steps=25, end_factor=0.05)
    config.optim.clip.gen.update(name="global_norm", value=1.0)
    config.data.update(dataset="pictures", image_size=32, num_threads=2)
    config.data.decode_once = True
    config.data.train.crop = {"name": "center"}
    config.train.update(num_steps=200, batch_size=32, ema_decay=0.99)
    config.eval.update(every=200, num_examples=0, batch_size=32, nll_samples=4)
    config.log.update(every=25, images_every=200, num_images=20)
    config.checkpoint.every = 100
    return prior_schema.shrink(config) if "tiny" in words else config

"""A class-conditional masked prior of pictures in folders, at 64²: 8x8x4 indices.

Not a paper's experiment: how to draw from a folder of your own that has a folder for
each class (DIR/train/CLASS/*.jpg and DIR/validation/CLASS/*.jpg). Trains the tokenizer
of configs/movq_pictures.py first, into WORKDIR/tokenizer, or takes the one of
--config.tokenizer.

    python -m movq_jax.tools.prepare --dataset=folder --name=pictures --source=DIR
    python -m movq_jax.main --config=configs/maskgit_pictures.py
    python -m movq_jax.tools.sample --model=runs/maskgit_pictures --output=samples

Of MaskGIT (2202.04200) are masks, smoothing and sampling; a class is dropped one time
in ten, for guidance. The sizes, 6 blocks of width 192, a depth head of 2 and 1,000
steps of 32 pictures, are made for a few thousand pictures and a CPU: on a GPU, give
--config.model.width=512 --config.model.heads=8 --config.model.mlp=2048, more steps.

Number to reach: 5.86 bits an index (1,499 an image) on 341 held-out photographs of
clothes of 10 classes, after 3,068 of training, by the likelihood's bound; see RESULTS.
Cost: 45 minutes on 2 CPU cores that had other work as well, the tokenizer not included.
Arguments: `parallel`, `independent` (the other ways to model channels, see
`prior_schema.masked`), `tiny` (seconds, to see that everything runs; on photographs and
without classes).
"""

from ml_collections import ConfigDict

from movq_jax.config import choose_one, prior_schema, read_arg


def get_config(arg: str = "") -> ConfigDict:
    """Return the config; `arg` may hold a way to model channels, and 'tiny'."""
    words = read_arg(arg, [*prior_schema.CHANNELS, "tiny"])
    config = prior_schema.prior_config()
    config.tokenizer_config = "movq_pictures"
    config.model.update(width=192, depth=6, heads=6, mlp=768, num_classes=-1)
    config.model.channels.depth = 2
    config.sample.update(steps=16, guidance=3.0, temperature=0.9)

    config.optim.gen.learning_rate = 1e-3
    config.optim.schedule.update(name="cosine", warmup_steps=100, end_factor=0.05)
    config.optim.clip.gen.update(name="global_norm", value=1.0)
    config.data.update(dataset="pictures", image_size=64, num_threads=2)
    config.data.decode_once = True
    config.data.train.crop = {"name": "center"}
    config.train.update(num_steps=1_000, batch_size=32, ema_decay=0.99)
    config.eval.update(every=500, num_examples=0, batch_size=32)
    config.log.update(every=25, images_every=500, num_images=20)
    config.checkpoint.every = 500
    prior_schema.vary_channels(config, choose_one(words, prior_schema.CHANNELS))
    return prior_schema.shrink(config) if "tiny" in words else config

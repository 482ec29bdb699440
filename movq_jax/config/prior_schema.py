"""Every key of a prior's config: what it means, and where an experiment starts from.

A prior learns the grids of indices that a tokenizer makes of images. A file in
`configs/` calls `prior_config()` and changes what its paper does differently;
`autoregressive` is the other kind of prior, and `shrink` makes any of them run in
seconds. What a dict with a `name` is, and what the sections `data`, `log` and
`checkpoint` hold, see `movq_jax.config.schema`.
"""

from ml_collections import ConfigDict

from movq_jax.config.schema import data_section, distance, init


def prior_config() -> ConfigDict:
    """Return MaskGIT's prior (2202.04200) with a depth head, without classes.

    Every key is there and locked, so that a misspelt one fails in the file that has
    it. `optim.schedule.num_steps` follows `train.num_steps` until it is set itself.
    """
    config = ConfigDict(
        {
            "seed": 0,
            **init(),
            # The model that makes the indices: a workdir, or a model bundle. Empty:
            # the tokenizer of tokenizer_config is trained first, into
            # <workdir>/tokenizer, on the images of `data`.
            "tokenizer": "",
            "tokenizer_config": "movq_photos",
            "tokens": _tokens(),
            # Folders that `movq tokenize` made, to learn from and to evaluate on.
            # Empty: the images of `data` are encoded at each step.
            "cache": {"train": "", "eval": ""},
            "model": masked(),
            "loss": _loss(),
            "optim": _optim(),
            "data": data_section(),
            "train": _train(),
            # `every` counts steps (0: never); the last step is always one of them.
            "eval": {
                "every": 10_000,  # the model bundle is written then, as well
                "num_examples": 5_000,  # of the evaluation split; 0: all of it
                "batch_size": 64,
                # Masks an image of which the bound of the likelihood is the mean (a
                # masked prior's; an autoregressive one's likelihood is exact).
                "nll_samples": 4,
                "distance": distance(),  # of samples, drawn as `sample` says
            },
            "log": {
                "every": 100,  # scalars, and the line on the screen
                "images_every": 10_000,  # grids of samples
                "num_images": 8,  # in a grid, always of the same random numbers
            },
            "checkpoint": {
                "every": 5_000,
                "keep": 2,  # the latest ones; the best by validation is kept besides
            },
            "sample": _sample(),
        }
    )
    config.optim.schedule.num_steps = config.train.get_oneway_ref("num_steps")
    return config.lock()


def masked() -> dict:
    """Return the model of a masked prior: MaskGIT's sizes in its released config."""
    return {
        "name": "masked",
        "width": 768,
        "depth": 24,  # transformer blocks
        "heads": 16,
        "mlp": 3072,  # hidden units of a block's MLP
        "dropout": 0.1,
        # How the M indices of a position depend on each other. depth: a causal
        # transformer of `depth` blocks over them. parallel: not at all, given the
        # other positions. independent: as parallel, but each index is masked and
        # drawn alone.
        "channels": {"name": "depth", "depth": 3},
        "num_classes": 0,  # 0: without; -1: as many as the data have
        "attention": "xla",  # or cudnn
        "dtype": "float32",  # of matrix products, or bfloat16
    }


def autoregressive(config: ConfigDict) -> ConfigDict:
    """Make `config`, in place, an autoregressive prior, and return it.

    Trunk, optimizer and weight decay are LlamaGen's (2406.06525); over its channels
    goes a depth head as in RQ-Transformer (2203.01941).
    """
    with config.unlocked():
        config.model = {
            "name": "autoregressive",
            "width": 768,
            "depth": 12,
            "heads": 12,
            "dropout": 0.1,
            # depth, as of a masked prior; or flat: all N * M indices one by one.
            "channels": {"name": "depth", "depth": 3},
            "num_classes": 0,
            "attention": "xla",
            "dtype": "float32",
        }
    config.optim.gen.update(b2=0.95, weight_decay=0.05)
    config.optim.clip.gen.update(name="global_norm", value=1.0)
    config.loss.label_smoothing = 0.0
    return config


CHANNELS = ("depth", "parallel", "independent")


def vary_channels(config: ConfigDict, name: str) -> ConfigDict:
    """Give a masked prior's `config`, in place, one of `CHANNELS`, and return it.

    With `independent`, there are M times as many units to draw: 48 steps for 12.
    """
    if name != "depth":
        with config.unlocked():
            config.model.channels = {"name": name}
    if name == "independent":
        config.sample.steps *= 4
    return config


def few_photographs(config: ConfigDict) -> ConfigDict:
    """Make `config`, in place, learn from a handful of photographs, and return it.

    What the configs of `photos` have in common: random crops of 32 x 32 pixels, which
    the tokenizer of configs/movq_photos.py turns into 8 x 8 positions, a small trunk,
    and 600 steps.
    """
    config.tokenizer_config = "movq_photos"
    config.model.update(width=128, depth=4, heads=4)
    if config.model.channels.name == "depth":
        config.model.channels.depth = 2
    config.optim.gen.learning_rate = 1e-3
    config.optim.schedule.update(name="cosine", warmup_steps=100, end_factor=0.05)
    config.optim.clip.gen.update(name="global_norm", value=1.0)
    config.data.update(dataset="photos", image_size=32, num_threads=2, decode_once=True)
    config.data.train.resize = {"name": "none"}
    config.data.train.crop = {
        "name": "random_scaled",
        "min_scale": 1.0,
        "max_scale": 2.0,
    }
    config.data.eval.resize = {"name": "short_side"}
    config.data.eval.crop = {"name": "center"}
    config.train.update(num_steps=600, batch_size=16, ema_decay=0.99)
    config.train.max_bad_steps = 10
    config.eval.update(every=300, num_examples=0, batch_size=2, nll_samples=16)
    config.eval.distance.name = "none"  # of a handful there is none
    config.log.update(every=20, images_every=300, num_images=16)
    config.checkpoint.every = 300
    return config


def _tokens() -> dict:
    """Filled in when a run begins, then part of it: see `training.prior_resolving`."""
    return {
        "fingerprint": "",  # of the tokenizer
        "grid": (0, 0),  # rows and columns of positions
        "codebook_sizes": (),  # one number a channel
        "books": (),  # one name a channel: which codebook it points into
        "factor": 0,  # pixels a position, both ways
        "classes": (),  # names; of a prior without classes none
    }


def _loss() -> dict:
    return {
        # Of a masked prior: the share of masked units is that of the schedule at a
        # time drawn from 0..1 (cosine, arccos, linear or power), min_rate at least.
        "mask": {"name": "cosine"},
        "min_rate": 0.0,
        "label_smoothing": 0.1,
        # Of a masked prior: weight of the loss at indices that it sees, where 1 is
        # that of the masked ones. 0 in MaskGIT, 0.1 in TiTok, 1 in MaskBit.
        "unmasked_weight": 0.0,
        "class_dropout": 0.1,  # share of the images whose class is not told
    }


def _optim() -> dict:
    return {
        # adamw, or adam. Biases, norms and embedding tables do not decay.
        "gen": {
            "name": "adamw",
            "learning_rate": 1e-4,
            "b1": 0.9,
            "b2": 0.96,
            "eps": 1e-8,
            "weight_decay": 0.045,
        },
        # constant, cosine or linear, see `movq_jax.config.schema`.
        "schedule": {
            "name": "constant",
            "warmup_steps": 5_000,
            "num_steps": 0,  # follows train.num_steps
            "end_factor": 0.0,
        },
        "clip": {"gen": {"name": "none", "value": 1.0}},
    }


def _train() -> dict:
    return {
        "num_steps": 1_500_000,
        "batch_size": 256,  # of all devices and hosts together
        "ema_decay": 0.999,  # of the weights that are evaluated; 0: the latest ones
        "max_bad_steps": 100,  # in a row with non-finite numbers, then give up
        # Memory for time: parts of a batch that go one after the other, and blocks
        # whose insides are computed twice.
        "accumulation": 1,
        "remat": False,
    }


def _sample() -> dict:
    """How the log's samples are drawn, and by default those of the trained model."""
    return {
        "steps": 12,  # of a masked prior
        "schedule": {"name": "cosine"},  # or arccos, linear, power (exponent)
        # Numbers, or a tuple with one for each channel.
        "temperature": 1.0,
        "top_k": 0,  # 0: off
        "top_p": 1.0,  # 1: off
        "choice_temperature": 4.5,  # of the noise on a masked prior's confidence
        "guidance": 0.0,  # w of (1 + w) conditional - w unconditional
        "guidance_schedule": {"name": "constant"},  # or linear, power_cosine (power)
        "order": {"name": "confidence"},  # or random, halton (roll)
    }


def shrink(
    config: ConfigDict,
    tokenizer_config: str = "movq_photos:tiny",
    dataset: str = "photos",
) -> ConfigDict:
    """Make `config`, in place, a run of seconds on a CPU, and return it.

    What the experiment is made of stays: its kind, channels, loss and optimizer. Sizes
    and steps become small. The data are those of `dataset`, without classes, and their
    tokenizer is trained first, a tiny one.
    """
    config.tokenizer = ""
    config.tokenizer_config = tokenizer_config
    config.cache.update(train="", eval="")
    config.model.update(width=32, depth=2, heads=2, num_classes=0, dtype="float32")
    if config.model.name == "masked":
        config.model.mlp = 64
    if config.model.channels.name == "depth":
        config.model.channels.depth = 1
    config.sample.update(steps=3, guidance=0.0)
    schedule = config.optim.schedule
    schedule.warmup_steps = min(2, schedule.warmup_steps)
    config.data.update(dataset=dataset, image_size=32, num_threads=2, decode_once=True)
    config.data.train.resize = {"name": "none" if dataset == "photos" else "short_side"}
    config.data.train.crop = {"name": "random"}
    config.data.eval.resize = {"name": "short_side"}
    config.data.eval.crop = {"name": "center"}
    config.data.eval.image_size = 32
    config.train.update(num_steps=6, batch_size=8, max_bad_steps=3, accumulation=1)
    config.eval.update(every=3, num_examples=8, batch_size=8, nll_samples=1)
    config.eval.distance.name = "none"  # its networks are not tiny
    config.log.update(every=1, images_every=3, num_images=4)
    config.checkpoint.every = 3
    return config

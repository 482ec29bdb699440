"""Every key of a config: what it means, and where an experiment starts from.

A file in `configs/` calls `tokenizer_config()` and changes what its paper does
differently; `shrink` makes any of them run in seconds.

A value that is a dict with a `name` is a member of a family: a quantizer, a crop, a
schedule. Its other fields are those of the member, so a file that chooses another
member replaces the whole dict.
"""

from ml_collections import ConfigDict


def tokenizer_config() -> ConfigDict:
    """Return the plain VQGAN of 256² images on 16² positions (arXiv 2012.09841).

    Every key is there and locked, so that a misspelt one fails in the file that has
    it. `optim.schedule.num_steps` follows `train.num_steps` until it is set itself.
    """
    config = ConfigDict(
        {
            "seed": 0,
            "model": _model(),
            "loss": _loss(),
            "optim": _optim(),
            "data": _data(),
            "train": _train(),
            # `every` counts steps (0: never); the last step is always one of them.
            "eval": {
                "every": 10_000,  # the model bundle is written then, as well
                "num_examples": 5_000,  # of the evaluation split; 0: all of it
                "batch_size": 64,
            },
            "log": {
                "every": 100,  # scalars, and the line on the screen
                "images_every": 5_000,  # grids of reconstructions
                "num_images": 8,  # in a grid, always the same pictures
            },
            "checkpoint": {
                "every": 5_000,
                "keep": 2,  # the latest ones; the best by validation is kept besides
            },
        }
    )
    config.optim.schedule.num_steps = config.train.get_oneway_ref("num_steps")
    return config.lock()


def _model() -> dict:
    return {
        "width": 128,  # channels of the first level
        "multipliers": (1, 1, 2, 2, 4),  # width of each level; each but one halves
        "res_blocks": 2,  # residual blocks a level (the decoder has one more)
        "attention_factors": (16,),  # levels with attention: 16 is 16² of 256²
        "z_channels": 256,  # channels between encoder or decoder and quantizer
        "dropout": 0.0,
        "dtype": "float32",  # of convolutions and products, or bfloat16
        # group, or spatial (modulated by the quantised map), which has a field init:
        # it starts as a group norm ('identity') or as torch's would ('torch').
        "decoder_norm": {"name": "group"},
        # vq, or multichannel: num_channels indices a position from one codebook.
        # beta weighs the commitment; with legacy, as in published code, the codebook.
        "quantizer": {
            "name": "vq",
            "codebook_size": 1024,
            "dim": 256,
            "beta": 0.25,
            "legacy": True,
        },
    }


def _loss() -> dict:
    return {
        "reconstruction": {"name": "l1", "weight": 1.0},  # or l2
        "quantizer_weight": 1.0,
        # hinge, or none. With adaptive, weight is multiplied by the ratio of the
        # gradients of reconstruction and adversarial loss, at most adaptive_max.
        "adversarial": {
            "name": "hinge",
            "weight": 0.8,
            "start": 10_000,  # step; before it there is no discriminator
            "adaptive": True,
            "adaptive_max": 1e4,
        },
        "discriminator": {"name": "patch", "width": 64, "layers": 3, "norm": "batch"},
    }


def _optim() -> dict:
    adam = {"name": "adam", "learning_rate": 2.16e-4, "b1": 0.5, "b2": 0.9, "eps": 1e-8}
    return {
        "gen": dict(adam),  # encoder, quantizer and decoder
        "disc": dict(adam),
        # Of both: constant, cosine or linear, the last two down to end_factor times
        # the learning rate at num_steps.
        "schedule": {
            "name": "constant",
            "warmup_steps": 0,
            "num_steps": 0,  # follows train.num_steps
            "end_factor": 0.0,
        },
        "clip": {"name": "none", "value": 1.0},  # global_norm or value: at `value`
    }


def _data() -> dict:
    return {
        "dataset": "folder",  # a name that `prepare` gave: photos, folder or your own
        "data_dir": "",  # empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets
        "split_train": "train",
        "split_eval": "validation",
        "image_size": 256,  # side of the squares to train on
        "train": {
            "resize": {"name": "short_side"},  # or none, squash
            "crop": {"name": "random"},  # or random_scaled, center, none
            "flip": True,
            "permute_channels": False,  # for sets of few photographs, few colours
        },
        "eval": {
            "resize": {"name": "short_side"},
            "crop": {"name": "center"},
            "image_size": 0,  # 0: that of training
        },
        "num_threads": 16,  # that read and decode
        "prefetch": 8,  # batches ready ahead
        "decode_once": False,  # keep decoded images in memory: for few, large ones
    }


def _train() -> dict:
    return {
        "num_steps": 100_000,
        "batch_size": 48,  # of all devices and hosts together
        "ema_decay": 0.9999,  # of the weights that are evaluated; 0: the latest ones
        # none, or kmeans: from encoder features, before each of `steps`.
        "codebook_init": {"name": "none"},
        "max_bad_steps": 100,  # in a row with non-finite numbers, then give up
    }


def shrink(config: ConfigDict) -> ConfigDict:
    """Make `config`, in place, a run of seconds on a CPU, and return it.

    What the experiment is made of stays: its quantizer, norms, losses, optimizers and
    number of levels. Sizes and steps become small, the data set `photos`.
    """
    config.model.update(
        width=32,
        multipliers=(1,) * len(config.model.multipliers),
        res_blocks=1,
        z_channels=min(16, config.model.z_channels),
        dtype="float32",
    )
    quantizer = config.model.quantizer
    quantizer.update(codebook_size=32, dim=min(8, quantizer.dim))
    config.loss.adversarial.start = min(2, config.loss.adversarial.start)
    config.loss.discriminator.update(width=8, layers=2)
    schedule = config.optim.schedule
    schedule.warmup_steps = min(2, schedule.warmup_steps)
    config.data.update(dataset="photos", image_size=32, num_threads=2, decode_once=True)
    config.data.train.resize = {"name": "none"}
    config.data.train.crop = {"name": "random"}
    config.data.eval.resize = {"name": "short_side"}
    config.data.eval.crop = {"name": "center"}
    config.data.eval.image_size = 32
    config.train.update(num_steps=6, batch_size=8, max_bad_steps=3)
    config.eval.update(every=3, num_examples=8, batch_size=8)
    config.log.update(every=1, images_every=3, num_images=4)
    config.checkpoint.every = 3
    return config

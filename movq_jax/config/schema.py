"""Every key of a config: what it means, and where an experiment starts from.

A file in `configs/` calls `tokenizer_config()` and changes what its paper does
differently; `lpips` and `stabilise` are changes that several have in common, and
`shrink` makes any of them run in seconds.

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
            **init(),
            "model": _model(),
            "loss": _loss(),
            "optim": _optim(),
            "data": data_section(),
            "train": _train(),
            # `every` counts steps (0: never); the last step is always one of them.
            "eval": {
                "every": 10_000,  # the model bundle is written then, as well
                "num_examples": 5_000,  # of the evaluation split; 0: all of it
                "batch_size": 64,
                "distance": distance(),
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


def init() -> dict:
    """Return what training begins with."""
    return {
        # A model bundle or a run: its weights, and its model whatever `model` says but
        # for dropout and dtype. Empty: from scratch.
        "init_from": "",
        "init_discriminator": False,  # that of the run that init_from is, as well
    }


def _model() -> dict:
    return {
        "width": 128,  # channels of the first level
        "multipliers": (1, 1, 2, 2, 4),  # width of each level; each but one halves
        "res_blocks": 2,  # residual blocks a level (the decoder has one more)
        "attention_factors": (16,),  # levels with attention: 16 is 16² of 256²
        "z_channels": 256,  # channels between encoder or decoder and quantizer
        "norm_groups": 32,  # of group norms, at most
        "dropout": 0.0,
        "dtype": "float32",  # of convolutions and products, or bfloat16
        # group, or spatial (modulated by the quantised map), which has a field init:
        # it starts as a group norm ('identity') or as torch's would ('torch'). Either
        # may have `groups` of its own, which are else norm_groups.
        "decoder_norm": {"name": "group"},
        # vq, multichannel or residual (num_channels indices a position from one
        # codebook), dual (a global and a local codebook), fsq or lfq (no codebook).
        # beta weighs the commitment; with legacy, as in published code, the codebook.
        # form: of the codes, plain, l2 or linear. estimator: straight_through, or
        # rotation.
        "quantizer": {
            "name": "vq",
            "codebook_size": 1024,
            "dim": 256,
            "beta": 0.25,
            "legacy": True,
            "form": "plain",
            "estimator": "straight_through",
        },
    }


def _loss() -> dict:
    return {
        "reconstruction": {"name": "l1", "weight": 1.0},  # or l2
        "quantizer_weight": 1.0,
        # lpips_vgg, lpips_alex, squeezenet or none. weights: of lpips_* the folder with
        # the files (empty: $MOVQ_JAX_WEIGHTS, else ~/.cache/movq_jax/weights, where
        # they are fetched to), of squeezenet the file. dtype: of its convolutions.
        "perceptual": {
            "name": "none",
            "weight": 1.0,
            "weights": "",
            "dtype": "bfloat16",
        },
        # hinge, non_saturating, vanilla or none. With adaptive, weight is multiplied
        # by the ratio of the gradients of reconstruction and adversarial loss, at
        # most adaptive_max.
        "adversarial": {
            "name": "hinge",
            "weight": 0.8,
            "start": 10_000,  # step from which the discriminator pushes
            "warmup": 0,  # steps before it in which the discriminator learns already
            "adaptive": True,
            "adaptive_max": 1e4,
            # Gradient penalty on real images, each `every` steps; 0: none.
            "r1": {"weight": 0.0, "every": 16},
            # Keeps the logits near running averages of the other kind; 0: none.
            "lecam": {"weight": 0.0, "decay": 0.999},
            # What the discriminator sees is changed by: translation, color, cutout.
            "augment": {"policies": (), "probability": 1.0, "cutout": 0.2},
        },
        # patch (norm: batch, group or none), or stylegan (blur-pooled; its fields are
        # width and max_width).
        "discriminator": {"name": "patch", "width": 64, "layers": 3, "norm": "batch"},
    }


def _optim() -> dict:
    adam = {"name": "adam", "learning_rate": 2.16e-4, "b1": 0.5, "b2": 0.9, "eps": 1e-8}
    return {
        # adam, or adamw, which has a field weight_decay.
        "gen": dict(adam),  # encoder, quantizer and decoder
        "disc": dict(adam),
        # Of both: constant, cosine or linear, the last two down to end_factor times
        # the learning rate at num_steps. Each warms up when it begins to learn.
        "schedule": {
            "name": "constant",
            "warmup_steps": 0,
            "num_steps": 0,  # follows train.num_steps
            "end_factor": 0.0,
        },
        # Of the gradients: none, global_norm, layer_wise (the norm of each tensor) or
        # value: at `value`.
        "clip": {
            "gen": {"name": "none", "value": 1.0},
            "disc": {"name": "none", "value": 1.0},
        },
    }


def distance() -> dict:
    """Return the distance of sets that evaluations in training measure.

    fid, squeezenet_fd, none, or auto: the first of these whose weights lie in
    $MOVQ_JAX_WEIGHTS, else ~/.cache/movq_jax/weights. Of so few images it is biased: it
    says how a run goes, and is no number for a table. weights: a file elsewhere.
    """
    return {"name": "auto", "num_examples": 1_000, "weights": ""}


def data_section() -> dict:
    """Return the images of an experiment, whatever learns from them."""
    return {
        "dataset": "folder",  # a name that `prepare` gave: photos, folder or your own
        "data_dir": "",  # empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets
        "split_train": "train",
        "split_eval": "validation",
        "image_size": 256,  # side of the squares to train on
        "train": {
            "resize": {"name": "short_side"},  # or adm, squash, none
            "crop": {"name": "random"},  # or center, random_resized, ...: data/crops.py
            "flip": True,
            "permute_channels": False,  # for sets of few photographs, few colours
            # Faster and a little less exact: JPEGs that resizing makes much smaller
            # are decoded at a half, a quarter or an eighth of their size.
            "reduced_decoding": False,
        },
        "eval": {
            "resize": {"name": "short_side"},
            "crop": {"name": "center"},
            "image_size": 0,  # 0: that of training
        },
        "num_threads": 16,  # that read and decode
        # Processes that do so for training, instead of this one: one a core where
        # `movq benchmark --part=input` says that threads alone are too slow.
        "num_workers": 0,
        "prefetch": 8,  # batches ready ahead
        "decode_once": False,  # keep decoded images in memory: for few, large ones
        # A training image that cannot be read is replaced by another one; above this
        # share training stops (0: at the first).
        "max_broken_share": 0.01,
    }


def _train() -> dict:
    return {
        "num_steps": 100_000,
        "batch_size": 48,  # of all devices and hosts together
        "ema_decay": 0.9999,  # of the weights that are evaluated; 0: the latest ones
        # none, or kmeans: from encoder features, before each of `steps`.
        "codebook_init": {"name": "none"},
        # What moves codes besides the optimizer, see `training.codebook_rules`:
        # gradient (nothing), ema (instead of the optimizer), or cvq. Codes with running
        # counts below revive_below are replaced by features (0: none; not with cvq).
        "codebook_update": {"name": "gradient", "decay": 0.99, "revive_below": 0.0},
        "max_bad_steps": 100,  # in a row with non-finite numbers, then give up
        # Memory for time: parts of a batch that go one after the other, and levels of
        # encoder and decoder (0: at the image's size) that are computed twice.
        "accumulation": 1,
        "remat_levels": (),
    }


def lpips(config: ConfigDict, weight: float = 1.0) -> ConfigDict:
    """Add the perceptual loss of the papers to `config`, in place, and return it.

    LPIPS of VGG16; the files are fetched (0.5 GB) or put in place, see README.
    """
    config.loss.perceptual.update(name="lpips_vgg", weight=weight)
    return config


def vqgan_epochs(
    config: ConfigDict, epochs: int, *, images: int, batch_size: int
) -> ConfigDict:
    """Give `config`, in place, VQGAN's optimization for `epochs`, and return it.

    As its code has it: Adam (0.5, 0.9) at 4.5e-6 times the batch, without averaged
    weights.
    """
    for adam in (config.optim.gen, config.optim.disc):
        adam.learning_rate = 4.5e-6 * batch_size
    config.train.batch_size = batch_size
    config.train.num_steps = epochs * images // batch_size
    config.train.ema_decay = 0.0
    return config


def stabilise(config: ConfigDict) -> ConfigDict:
    """Give `config`, in place, the GAN terms of the other school, and return it.

    VQGAN's own are strong and steered by the adaptive weight. These are small, fixed
    and regularised, as in Google's tokenizer of MaskGIT (2202.04200): non-saturating
    loss of weight 0.1, blur-pooled discriminator of StyleGAN's kind, R1 of cost 10,
    Adam (0, 0.99) at 1e-4. R1 at each 16th step only (StyleGAN2), the first 1,000 steps
    of the discriminator without push, and clipping are choices of this project. The
    discriminator's gradients are not clipped: those of the penalty, 16 times as large
    at one step of 16, would be cut to nothing.
    """
    adversarial = config.loss.adversarial
    adversarial.update(name="non_saturating", weight=0.1, adaptive=False, warmup=1_000)
    adversarial.start = max(adversarial.start, adversarial.warmup)
    adversarial.r1.update(weight=10.0, every=16)
    config.loss.discriminator = {"name": "stylegan", "width": 64, "max_width": 512}
    for adam in (config.optim.gen, config.optim.disc):
        adam.update(learning_rate=1e-4, b1=0.0, b2=0.99)
    config.optim.clip.gen.update(name="global_norm", value=1.0)
    return config


def few_photographs(config: ConfigDict) -> ConfigDict:
    """Make `config`, in place, learn from a handful of photographs, and return it.

    What the configs of `photos` have in common: a small backbone (width 32, factor 4),
    squared error without a discriminator, codebooks from encoder features (k-means)
    before the first step and at a few early ones, so that no code is dead, and 800
    steps of random crops. Colour channels are permuted, because so few photographs do
    not hold all colours.
    """
    config.model.update(
        width=32,
        multipliers=(1, 1, 2),
        res_blocks=1,
        attention_factors=(),
        z_channels=64,
    )
    config.loss.reconstruction.update(name="l2", weight=4.0)
    config.loss.quantizer_weight = 0.25
    config.loss.adversarial.name = "none"

    for adam in (config.optim.gen, config.optim.disc):
        adam.update(learning_rate=2e-3, b1=0.9, b2=0.99)
    config.optim.schedule.update(name="cosine", warmup_steps=20, end_factor=0.05)
    config.optim.clip.gen.update(name="global_norm", value=1.0)

    config.data.update(dataset="photos", image_size=64, num_threads=2, decode_once=True)
    config.data.train.resize = {"name": "none"}
    config.data.train.crop = {
        "name": "random_scaled",
        "min_scale": 1.0,
        "max_scale": 2.0,
    }
    config.data.train.permute_channels = True
    config.data.eval.resize = {"name": "short_side"}
    config.data.eval.image_size = 256

    config.train.update(num_steps=800, batch_size=8, ema_decay=0.99, max_bad_steps=10)
    config.train.codebook_init = {
        "name": "kmeans",
        "steps": (0, 40, 100, 200, 300, 400),
        "features_per_code": 20,
        "iterations": 10,
    }
    config.eval.update(every=400, num_examples=0, batch_size=2)
    config.eval.distance.name = "none"  # of a handful there is none
    config.log.update(every=20, images_every=400, num_images=4)
    config.checkpoint.every = 400
    return config


def dual_codebook(config: ConfigDict) -> ConfigDict:
    """Give `config`, in place, the paper's dual codebook (2503.10832), and return it.

    The authors' code has losses of the halves with beta on the commitment, LPIPS of
    weight 1.25 and a discriminator from step 10,000.
    """
    config.model.quantizer = {
        "name": "dual",
        "codebook_size": 512,  # rows of each book
        "dim": 256,  # both halves together
        "global_half": "first",
        "depth": 6,  # layers of the transformer over the global book
        "heads": 8,
        "ffn": 2048,
        "dropout": 0.1,
        "beta": 0.25,
        "legacy": False,
    }
    lpips(config, weight=1.25)
    config.loss.adversarial.update(weight=0.8, start=10_000)
    return config


DUAL_VARIANTS = ("depth0", "ema", "modulated")


def vary_dual(config: ConfigDict, words: set[str]) -> ConfigDict:
    """Change a dual codebook's `config`, in place, as `words` say, and return it.

    `depth0`: no transformer, so that it is plain product quantisation. `ema`: codes
    that no transformer makes are running means, not trained by gradient. `modulated`:
    MoVQ's decoder.
    """
    if "depth0" in words:
        config.model.quantizer.depth = 0
    if "ema" in words:
        config.train.codebook_update.name = "ema"
    if "modulated" in words:
        config.model.decoder_norm = {"name": "spatial", "init": "identity"}
    return config


def shrink(config: ConfigDict, dataset: str = "photos") -> ConfigDict:
    """Make `config`, in place, a run of seconds on a CPU, and return it.

    What the experiment is made of stays: its quantizer, norms, losses, optimizers and
    number of levels. Sizes and steps become small, the data those of `dataset`.
    """
    config.model.update(
        width=32,
        multipliers=(1,) * len(config.model.multipliers),
        res_blocks=1,
        z_channels=min(16, config.model.z_channels),
        dtype="float32",
    )
    _shrink_quantizer(config.model.quantizer)
    config.loss.perceptual.name = "none"  # its networks are not tiny
    adversarial = config.loss.adversarial
    adversarial.start = min(2, adversarial.start)
    adversarial.warmup = min(1, adversarial.warmup)
    adversarial.r1.every = min(2, adversarial.r1.every)
    config.loss.discriminator.width = 8
    if config.loss.discriminator.name == "patch":
        config.loss.discriminator.layers = 2
    else:
        config.loss.discriminator.max_width = 16
    schedule = config.optim.schedule
    schedule.warmup_steps = min(2, schedule.warmup_steps)
    config.data.update(dataset=dataset, image_size=32, num_threads=2, decode_once=True)
    config.data.train.resize = {"name": "none" if dataset == "photos" else "short_side"}
    config.data.train.crop = {"name": "random"}
    config.data.eval.resize = {"name": "short_side"}
    config.data.eval.crop = {"name": "center"}
    config.data.eval.image_size = 32
    config.train.update(num_steps=6, batch_size=8, max_bad_steps=3)
    config.eval.update(every=3, num_examples=8, batch_size=8)
    config.eval.distance.name = "none"  # its networks are not tiny
    config.log.update(every=1, images_every=3, num_images=4)
    config.checkpoint.every = 3
    return config


def _shrink_quantizer(quantizer: ConfigDict) -> None:
    """Few and short codes, whatever the family member calls them."""
    if quantizer.name == "dual":
        quantizer.update(codebook_size=32, dim=16, heads=2, ffn=16)
        quantizer.depth = min(1, quantizer.depth)
    elif quantizer.name == "fsq":
        quantizer.levels = quantizer.levels[:3]
    elif quantizer.name == "lfq":
        quantizer.update(bits=min(8, quantizer.bits), group=0)
    else:
        quantizer.update(codebook_size=32, dim=min(8, quantizer.dim))

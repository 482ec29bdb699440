"""A small MoVQ of the photographs in the scikit-image and scikit-learn wheels.

Not a paper's experiment: the demo. It learns on a CPU, from random crops of a handful
of photographs, to rebuild photographs that it never saw, at 4 indices for each 4x4
pixels. Backbone, losses, data and steps are those of `schema.few_photographs`. There is
no discriminator: the training is too short for one.

    python -m movq_jax.tools.prepare --dataset=photos
    python -m movq_jax.main --config=configs/movq_photos.py

Number to reach: 27.4 dB PSNR on the held-out photographs, with at least 80 %
of the codes in use. Cost: 8 minutes with the installation on 2 CPU cores.
Arguments: `tiny` (seconds, to see that everything runs).
"""

from ml_collections import ConfigDict

from movq_jax.config import read_arg, schema


def get_config(arg: str = "") -> ConfigDict:
    """Return the config; `arg` may be 'tiny'."""
    words = read_arg(arg, ["tiny"])
    config = schema.few_photographs(schema.tokenizer_config())
    config.model.decoder_norm = {"name": "spatial", "init": "identity"}
    config.model.quantizer = {
        "name": "multichannel",
        "num_channels": 4,
        "codebook_size": 256,
        "dim": 4,
        "beta": 0.25,
        "legacy": False,
    }
    return schema.shrink(config) if "tiny" in words else config

"""A small Dual Codebook VQ, of the photographs in two wheels.

Not a paper's experiment: the demo of the dual codebook (arXiv 2503.10832), on a CPU and
without a download. 2 indices for each 4x4 pixels, of a global book whose 512 codes
come out of a transformer of 2 layers and of a local one of 512. Backbone, losses, data
and steps are those of `schema.few_photographs`. configs/dualmovq_photos.py has it
under MoVQ's decoder.

    python -m movq_jax.tools.prepare --dataset=photos
    python -m movq_jax.main --config=configs/dualvq_photos.py

Number to reach: 24.6 dB PSNR on the 256² middles of the two held-out photographs, 63 %
and 54 % of the codes in use (one seed); 24.8 dB and SSIM 0.70 on the whole photographs.
Cost: 8 minutes on a CPU core.
Arguments: `depth0`, `ema` (see `schema.vary_dual`), `tiny` (seconds, to see that
everything runs).
"""

from ml_collections import ConfigDict

from movq_jax.config import read_arg, schema


def get_config(arg: str = "") -> ConfigDict:
    """Return the config; `arg` may hold any of the arguments, such as 'depth0,ema'."""
    words = read_arg(arg, ["depth0", "ema", "tiny"])
    config = schema.few_photographs(schema.tokenizer_config())
    config.model.norm_groups = 8  # of 4 channels: 32 would be of one
    config.model.decoder_norm = {"name": "group"}
    config.model.quantizer = {
        "name": "dual",
        "codebook_size": 512,
        "dim": 16,
        "depth": 2,
        "heads": 2,
        "ffn": 128,
        "dropout": 0.1,
        "beta": 0.25,
        "legacy": False,
    }
    schema.vary_dual(config, words)
    return schema.shrink(config) if "tiny" in words else config

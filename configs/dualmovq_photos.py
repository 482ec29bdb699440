"""A small dual codebook under MoVQ's decoder, of the photographs in two wheels.

Not a paper's experiment: the demo of the dual codebook (arXiv 2503.10832), on a CPU and
without a download. 2 indices for each 4x4 pixels, of a global book whose 512 codes
come out of a transformer of 2 layers and of a local one of 512. Backbone, losses, data
and steps are those of `schema.few_photographs`. No paper has tried this combination; it
is a config, and no more.

    python -m movq_jax.tools.prepare --dataset=photos
    python -m movq_jax.main --config=configs/dualmovq_photos.py

Number to reach: 26.9 dB PSNR on the 256² middles of the two held-out photographs, 52 %
and 55 % of the codes in use (one seed); 26.8 dB and SSIM 0.74 on the whole photographs.
With norm groups of 4 channels, which configs/dualvq_photos.py needs, 25.9 dB.
Cost: 10 minutes on a CPU core.
Arguments: `depth0`, `ema` (see `schema.vary_dual`), `tiny` (seconds, to see that
everything runs).
"""

from ml_collections import ConfigDict

from movq_jax.config import read_arg, schema


def get_config(arg: str = "") -> ConfigDict:
    """Return the config; `arg` may hold any of the arguments, such as 'depth0,ema'."""
    words = read_arg(arg, ["depth0", "ema", "tiny"])
    config = schema.few_photographs(schema.tokenizer_config())
    config.model.decoder_norm = {"name": "spatial", "init": "identity"}
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

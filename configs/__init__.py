"""The experiments: one file each, with `get_config(arg)`.

Every file tells the paper and the row of its table, the command, the number to reach
and the cost. `movq_jax/config/schema.py` tells what the keys mean. The folder is
installed as `movq_jax.configs`, so that `--config=configs/movq_photos.py` works from
anywhere.
"""

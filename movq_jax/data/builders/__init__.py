"""Builders: what of a user's disk makes up a dataset.

A builder is a function that returns a `Listing`; its parameters are the flags of
`movq prepare` that it takes. `writing` turns a listing into a prepared dataset.
`name/config` is an edition of `name`, which alone takes the one that it finds.
"""

import functools

from movq_jax.data.builders import coco, folder, photos

BUILDERS = {
    "photos": photos.find,
    "folder": folder.find,
    "coco": coco.find,
    **{
        f"coco/{edition}": functools.partial(coco.find, edition=edition)
        for edition in coco.EDITIONS
    },
}

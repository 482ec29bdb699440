"""Builders: what of a user's disk makes up a dataset.

A builder is a function that returns a `Listing`; its parameters are the flags of
`movq prepare` that it takes. `writing` turns a listing into a prepared dataset.
"""

from movq_jax.data.builders import folder, photos

BUILDERS = {"photos": photos.find, "folder": folder.find}

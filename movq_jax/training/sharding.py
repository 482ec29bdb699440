"""The mesh, and how state and batches lie on it. The one file that names its axes."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from movq_jax.errors import UserError

DATA_AXIS = "data"


def make_mesh(devices=None) -> Mesh:
    """All devices along one axis, for data parallelism."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh(
        (len(devices),), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis is cut into equal parts, one a device."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def check_batch_size(batch_size: int, mesh: Mesh, key: str) -> None:
    """Refuses a batch that the devices or the hosts cannot share evenly."""
    if batch_size < 1 or batch_size % mesh.size:
        raise UserError(
            f"{key} is {batch_size}, but must be a positive multiple of the number of "
            f"devices, {mesh.size}"
        )


def shard_local_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Each host's slice of a batch -> arrays of the global batch."""
    return jax.make_array_from_process_local_data(batch_sharding(mesh), batch)

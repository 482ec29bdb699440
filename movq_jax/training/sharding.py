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


def check_batch_size(batch_size: int, mesh: Mesh, key: str, parts: int = 1) -> None:
    """Refuses a batch whose `parts` the devices or the hosts cannot share evenly."""
    if batch_size >= 1 and batch_size % (mesh.size * parts) == 0:
        return
    unit = f"the number of devices, {mesh.size}"
    if parts > 1:
        unit += f", times config.train.accumulation, {parts}"
    raise UserError(f"{key} is {batch_size}, but must be a positive multiple of {unit}")


def even_batch_size(batch_size: int, mesh: Mesh) -> int:
    """The next size from `batch_size` on that the devices can share evenly."""
    return -(-batch_size // mesh.size) * mesh.size


def shard_local_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Each host's slice of a batch -> arrays of the global batch."""
    return jax.make_array_from_process_local_data(batch_sharding(mesh), batch)

"""A function of many images, in micro-batches of one size on one or several devices."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

_AXIS = "data"


class MicroBatches:
    """Runs compiled functions of (variables, shared, images) over devices.

    Each device sees micro-batches of one size, the last of them padded: so the result
    of an image depends neither on the images beside it nor on how many devices work,
    to the bit.
    """

    def __init__(
        self, variables: Any, micro_batch: int, devices: Sequence[jax.Device]
    ) -> None:
        """Puts a copy of `variables` on each of `devices`."""
        self._mesh = Mesh(np.asarray(devices), (_AXIS,), axis_types=(AxisType.Auto,))
        whole = NamedSharding(self._mesh, PartitionSpec())
        self._variables = jax.device_put(variables, whole)
        self._micro_batch = micro_batch

    @property
    def size(self) -> int:
        """Images of a call, over all devices."""
        return self._micro_batch * self._mesh.size

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function(variables, shared, images)` for `run`, to be compiled once.

        `images` and the result are trees of arrays with the images in front.
        """
        per_image = PartitionSpec(_AXIS)
        everywhere = PartitionSpec()
        return jax.jit(
            jax.shard_map(
                function,
                mesh=self._mesh,
                in_specs=(everywhere, everywhere, per_image),
                out_specs=per_image,
                # Every device works on its own images, nothing goes between them.
                check_vma=False,
            )
        )

    def run(self, program: Callable[..., Any], shared: Any, images: Any) -> Any:
        """Calls what `compiled` returned for all of `images`; NumPy in and out.

        Args:
          program: what `compiled` returned.
          shared: a tree of arrays that is the same for all images.
          images: a tree of arrays [n, ...], n from 1.
        """
        count = len(jax.tree.leaves(images)[0])
        outputs = []
        for start in range(0, count, self.size):
            part = jax.tree.map(lambda x: self._padded(x, start), images)  # noqa: B023
            outputs.append(jax.device_get(program(self._variables, shared, part)))
        return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *outputs)

    def _padded(self, array: np.ndarray, start: int) -> np.ndarray:
        part = array[start : start + self.size]
        return np.concatenate([part, np.repeat(part[-1:], self.size - len(part), 0)])

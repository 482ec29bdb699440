"""Counting the floating-point operations of a function, without compiling it.

The count is analytic: 2 for each multiply-add of a matrix product or convolution, as in
papers; element-wise work, sums and look-ups are left out. A compiler's own count says
something else: it drops padded taps and counts the body of a loop once.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Jaxpr, JaxprEqn, jaxprs_in_params
from jax.interpreters import partial_eval


def count_flops(fn: Callable, *abstract_args: Any) -> int:
    """FLOPs of `fn(*abstract_args)`, what its results do not need left out.

    Nothing is computed or compiled: the function is traced. Work that only results
    nobody returns depend on is not counted, as a compiler removes it.

    - A convolution counts kernel taps times outputs, taps on padding included (see
      `_convolution`), and each of its two gradients as much as itself.
    - The body of a `scan` counts as often as it runs, that of a `while_loop`, whose
      length is not known, once; of a `cond` the dearest branch counts, so what runs
      only now and then is counted as if it ran always.
    - What other kernels (FFT, Pallas) compute is not counted.

    Args:
      fn: to be traced by `jax.make_jaxpr`.
      abstract_args: pytrees of arrays or `jax.ShapeDtypeStruct`.

    Example:
      >>> a = jax.ShapeDtypeStruct((8, 8), "float32")
      >>> count_flops(lambda a: a @ a, a)
      1024
    """
    jaxpr = jax.make_jaxpr(fn)(*abstract_args).jaxpr
    needed, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return count_jaxpr(needed)


def count_jaxpr(jaxpr: Jaxpr) -> int:
    """FLOPs of all equations of `jaxpr`, see `count_flops`."""
    return sum(_equation(eqn) for eqn in jaxpr.eqns)


def _equation(eqn: JaxprEqn) -> int:
    name = eqn.primitive.name
    if name == "dot_general":
        return _product(eqn)
    if name == "conv_general_dilated":
        return _convolution(eqn)
    bodies = [count_jaxpr(body) for body in jaxprs_in_params(eqn.params)]
    if name == "cond":
        return max(bodies)
    repetitions = 1
    if name == "scan":
        repetitions = eqn.params["length"]
    elif name == "shard_map":  # the body sees the part of one device
        axes = eqn.params["newly_manual_axes"]
        repetitions = math.prod(eqn.params["mesh"].shape[axis] for axis in axes)
    return repetitions * sum(bodies)


def _product(eqn: JaxprEqn) -> int:
    """Each element of the result is a sum over the contracted axes."""
    (contracted, _), _ = eqn.params["dimension_numbers"]
    shape = eqn.invars[0].aval.shape
    terms = math.prod(shape[axis] for axis in contracted)
    return 2 * math.prod(eqn.outvars[0].aval.shape) * terms


def _convolution(eqn: JaxprEqn) -> int:
    """Multiply-adds of a convolution, the same for both of its gradients.

    Along an axis a convolution has three lengths: input, kernel and output. Its
    gradients are convolutions of the same three, with other roles, and with dilation
    where it has a stride. Each value of one of two lengths meets each of the other
    at most once; so the least of the three products is a bound, and the same in any
    role. Of the convolution itself it is kernel times output, padded taps included
    (unless the image is smaller than the kernel). Zeros that dilation puts between
    values are not counted.
    """
    lhs, rhs = (var.aval.shape for var in eqn.invars)
    out = eqn.outvars[0].aval.shape
    lhs_axes, rhs_axes, out_axes = eqn.params["dimension_numbers"]
    # The kernel's input axis is that of one group already.
    flops = 2 * out[out_axes[0]] * out[out_axes[1]] * rhs[rhs_axes[1]]
    axes = zip(lhs_axes[2:], rhs_axes[2:], out_axes[2:], strict=True)
    for i, k, o in axes:
        flops *= min(lhs[i] * rhs[k], rhs[k] * out[o], lhs[i] * out[o])
    return flops

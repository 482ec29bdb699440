"""Against torch in float64: the discriminators as published, and R1 through them.

The networks are written down here from their descriptions, in torch's own layers.
"""

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.models.discriminators import PatchDiscriminator, StyleGANDiscriminator
from movq_jax.training.regularizers import r1_penalty

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def images():
    """Patches of colour under noise, so that blurring leaves something."""
    rng = np.random.default_rng(0)
    patches = rng.uniform(-1, 1, (4, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    noise = rng.uniform(-1, 1, (4, 32, 32, 3))
    return jnp.asarray(0.7 * patches + 0.3 * noise, jnp.float32)


def to_torch(torch, x):
    return torch.tensor(np.moveaxis(np.asarray(x, np.float64), -1, 1))


def from_torch(x):
    return np.moveaxis(x.detach().numpy(), 1, -1)


def torch_weight(torch, array):
    """HWIO -> OIHW, IO -> OI, vectors as they are."""
    axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[array.ndim]
    return torch.tensor(np.asarray(array, np.float64).transpose(axes))


def patch_in_torch(torch, params, width, layers, norm):
    """pix2pix's discriminator, with our parameters."""
    nn = torch.nn
    has_norm = norm == "batch"
    modules = {"conv_0": nn.Conv2d(3, width, 4, 2, 1), "act_0": nn.LeakyReLU(0.2)}
    now = width
    for i in range(1, layers + 1):
        before, now = now, width * min(2**i, 8)
        stride = 2 if i < layers else 1
        modules[f"conv_{i}"] = nn.Conv2d(before, now, 4, stride, 1, bias=not has_norm)
        if has_norm:
            modules[f"norm_{i}"] = nn.BatchNorm2d(now)
        modules[f"act_{i}"] = nn.LeakyReLU(0.2)
    modules["conv_out"] = nn.Conv2d(now, 1, 4, 1, 1)
    net = nn.Sequential()
    for name, module in modules.items():
        net.add_module(name, module)
    state = {
        f"{layer}.{'bias' if name == 'bias' else 'weight'}": torch_weight(torch, array)
        for layer, arrays in params.items()
        for name, array in arrays.items()
    }
    net.double().load_state_dict(state | _running_averages(net), strict=True)
    return net


def _running_averages(net):
    names = ("running_mean", "running_var", "num_batches_tracked")
    return {k: v for k, v in net.state_dict().items() if k.endswith(names)}


@pytest.mark.parametrize("layers", [1, 3])
def test_patch_with_batch_norm(torch, fill, images, layers):
    ours = PatchDiscriminator(width=8, layers=layers)
    params = fill(ours, images)
    batch_stats = jax.eval_shape(ours.init, jax.random.key(0), images)["batch_stats"]
    batch_stats = {
        name: {"mean": jnp.zeros(s["mean"].shape), "var": jnp.ones(s["var"].shape)}
        for name, s in batch_stats.items()
    }
    theirs = patch_in_torch(torch, params, 8, layers, "batch").train()
    variables = {"params": params, "batch_stats": batch_stats}
    train = jax.jit(lambda v: ours.apply(v, images, train=True, mutable="batch_stats"))
    logits, updated = train(variables)
    expected = from_torch(theirs(to_torch(torch, images)))
    assert expected.std() > 0.1
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    for name, kept in updated["batch_stats"].items():
        norm = getattr(theirs, name)
        np.testing.assert_allclose(kept["mean"], norm.running_mean, atol=1e-5)
    # In evaluation both use what they kept; theirs has the unbiased variance.
    for name in updated["batch_stats"]:
        variance = np.asarray(updated["batch_stats"][name]["var"], np.float64)
        getattr(theirs, name).running_var.copy_(torch.tensor(variance))
    evaluate = jax.jit(lambda v: ours.apply(v, images))
    logits = evaluate({"params": params, **updated})
    expected = from_torch(theirs.eval()(to_torch(torch, images)))
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_r1_and_its_gradient(torch, fill, images):
    ours = PatchDiscriminator(width=8, layers=2, norm="none")
    params = fill(ours, images)

    @jax.jit
    @jax.value_and_grad
    def penalty(params):
        return r1_penalty(lambda x: ours.apply({"params": params}, x), images)

    value, grads = penalty(params)

    theirs = patch_in_torch(torch, params, 8, 2, "none")
    x = to_torch(torch, images).requires_grad_(True)
    (gradient,) = torch.autograd.grad(theirs(x).sum(), x, create_graph=True)
    expected = gradient.square().sum(dim=(1, 2, 3)).mean()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5)

    parameters = dict(theirs.named_parameters())
    their_grads = torch.autograd.grad(
        expected, list(parameters.values()), allow_unused=True
    )
    by_name = dict(zip(parameters, their_grads, strict=True))
    for (layer, name), got in flax.traverse_util.flatten_dict(grads).items():
        wanted = by_name[f"{layer}.{'bias' if name == 'bias' else 'weight'}"]
        if wanted is None:  # a bias is in no derivative by x: LeakyReLU has no curve
            np.testing.assert_array_equal(got, 0)
            continue
        scale = float(wanted.abs().max())
        got = torch_weight(torch, np.asarray(got)).numpy()
        np.testing.assert_allclose(got, wanted.numpy(), atol=1e-5 * max(1.0, scale))


def test_stylegan(torch, fill, images):
    ours = StyleGANDiscriminator(width=8, max_width=16)
    params = fill(ours, images)
    logits = jax.jit(ours.apply)({"params": params}, images)

    def conv(layer, x):
        weight = torch_weight(torch, layer["kernel"])
        bias = torch_weight(torch, layer["bias"]) if "bias" in layer else None
        same = weight.shape[-1] // 2
        return torch.nn.functional.conv2d(x, weight, bias, padding=same)

    def linear(layer, x):
        return x @ torch_weight(torch, layer["kernel"]).T + torch_weight(
            torch, layer["bias"]
        )

    def active(x):
        return torch.nn.functional.leaky_relu(x, 0.2)

    def blur(x):
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64)
        kernel = (torch.outer(taps, taps) / 64).expand(x.shape[1], 1, 4, 4)
        return torch.nn.functional.conv2d(
            x, kernel, stride=2, padding=1, groups=x.shape[1]
        )

    h = active(conv(params["conv_in"], to_torch(torch, images)))
    for i in range(3):  # 32 -> 16 -> 8 -> 4
        block = params[f"block_{i}"]
        shortcut = conv(block["conv_shortcut"], blur(h))
        h = active(conv(block["conv_1"], blur(active(conv(block["conv_0"], h)))))
        h = (h + shortcut) / 2**0.5
    h = active(conv(params["conv_out"], h))
    h = h.permute(0, 2, 3, 1).flatten(1)  # in the order of our kernel's rows
    expected = linear(params["dense_out"], active(linear(params["dense"], h)))
    assert expected.std() > 0.01
    np.testing.assert_allclose(logits[:, 0, 0], expected.numpy(), atol=1e-5)

import hashlib
import zipfile

import numpy as np
import pytest

from movq_jax.pretrained import weights
from movq_jax.pretrained.weights import WeightsFile


@pytest.fixture
def publish_file(monkeypatch):
    """A function that makes a file the published one of its name; no other is."""
    table = {}
    monkeypatch.setattr(weights, "KNOWN_FILES", table)

    def publish_file(path):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        table[path.name] = WeightsFile("http://127.0.0.1:9/", 1, digest, "none")

    return publish_file


@pytest.fixture(scope="session")
def write_torch():
    """A function that writes tensors as torch does, from a dict of their shapes.

    Each repeats one number, its place in the dict, or the one in `numbers`.
    """

    def write_torch(path, shapes, **numbers):
        described = b"\x80\x02}"
        with zipfile.ZipFile(path, "w") as archive:
            for i, (name, shape) in enumerate(shapes.items()):
                number = np.float32(numbers.get(name, i))
                sizes = b"".join(b"I%d\n" % side for side in shape)
                described += (
                    f"S'{name}'\nctorch._utils\n_rebuild_tensor_v2\n((".encode()
                )
                described += f"S'storage'\nctorch\nFloatStorage\nS'{i}'\n".encode()
                described += b"S'cpu'\nI1\ntQI0\n(" + sizes + b"t("
                described += b"I0\n" * len(shape) + b"tI00\nNtRs"
                archive.writestr(f"x/data/{i}", number.tobytes())
            archive.writestr("x/data.pkl", described + b".")
        return path

    return write_torch

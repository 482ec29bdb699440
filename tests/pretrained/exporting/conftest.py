"""A fresh process that has jax and the exported files, and not this package."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

PROGRAM = """
import json, sys
from pathlib import Path

class NoMovq:  # an import of the package, by whomever, is an error
    def find_spec(self, name, path=None, target=None):
        assert name.partition(".")[0] not in ("movq_jax", "flax"), name

sys.meta_path.insert(0, NoMovq())
import jax, numpy as np, safetensors.numpy

folder, calls = Path(sys.argv[1]), json.loads(sys.argv[2])
record = json.loads((folder / "export.json").read_text())
programs = {program["file"]: program for program in record["programs"]}
for number, (name, arrays) in enumerate(calls):
    program = programs[name]
    exported = jax.export.deserialize((folder / name).read_bytes())
    weights = safetensors.numpy.load_file(folder / program["weights"])
    inputs = np.load(arrays)
    arguments = [inputs[array["name"]] for array in program["inputs"]]
    found = jax.jit(exported.call)(weights, *arguments)
    np.save(f"{arrays}.found.npy", np.asarray(found))
"""


@pytest.fixture
def call_elsewhere(tmp_path):
    """A function that calls exported programs in a process without this package.

    It takes the folder, and (file, {input: array}) for each call.
    """

    def call(folder, *calls):
        given = []
        for number, (name, arrays) in enumerate(calls):
            path = tmp_path / f"call{number}.npz"
            np.savez(path, **arrays)
            given.append((name, str(path)))
        # As the tests are: eight devices of a CPU, programs made in a hurry.
        environment = dict(os.environ, PYTHONPATH="")
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(folder), json.dumps(given)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return [np.load(f"{path}.found.npy") for _, path in given]

    return call

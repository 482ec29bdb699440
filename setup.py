"""Packaging. `configs/` is installed as `movq_jax.configs`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def version() -> str:
    """Return the version, without importing the package and what it needs."""
    text = (ROOT / "movq_jax" / "_version.py").read_text()
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)[1]


PHOTOS = ["scikit-image>=0.24", "scikit-learn>=1.5"]
PLOTS = ["matplotlib>=3.8"]
HUB = ["huggingface_hub>=1"]

setup(
    name="movq_jax",
    version=version(),
    description="MoVQ and VQGAN image tokenizers in JAX and Flax",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The movq_jax authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[*find_packages(include=["movq_jax", "movq_jax.*"]), "movq_jax.configs"],
    package_dir={"movq_jax.configs": "configs"},
    package_data={"movq_jax": ["py.typed"]},
    entry_points={"console_scripts": ["movq = movq_jax.__main__:main"]},
    install_requires=[
        "absl-py",
        "array-record>=0.8.1",
        "clu>=0.0.12",
        "einops>=0.8",
        "etils[epath]>=1.9",
        "flatbuffers",  # jax.export writes with it, and does not ask for it
        "flax>=0.12",
        "grain>=0.2.13",
        "importlib_resources",  # tensorflow-datasets needs it, and does not say so
        "jax>=0.10",
        "jaxtyping",
        "ml-collections>=1.1",
        "numpy",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.11.30",
        "pillow>=11",
        "safetensors",
        "tensorboardX",
        "tensorflow-datasets>=4.9.10",  # older ones fail with protobuf 7
    ],
    extras_require={
        # The photographs of the demo lie in these two wheels.
        "photos": PHOTOS,
        "plots": PLOTS,
        "hub": HUB,  # models to and from the Hugging Face Hub
        "onnx": ["jax2onnx>=0.17", "onnxruntime"],  # movq export --format=onnx
        "huggingface": ["datasets>=4"],  # images of its data sets, for movq prepare
        "test": [
            *PHOTOS,
            *PLOTS,
            *HUB,
            "beartype",
            "pytest>=8",
            "pytest-xdist",
            "scipy",
        ],
        # On Python 3.11 alone; install this torch first, and what needs torchvision
        # without what it asks for, see the Makefile. From scipy on: what it needs.
        "parity": [
            "torch==2.13.0",
            "diffusers",
            "scikit-image>=0.24",
            "scipy",
            "tqdm",
            "requests",
            "lightning-utilities",
        ],
        "cuda12": ["jax[cuda12]>=0.10"],
        "cuda13": ["jax[cuda13]>=0.10"],
        "tpu": ["jax[tpu]>=0.10"],
    },
    classifiers=[
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)

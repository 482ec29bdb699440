"""Small datasets in their official layouts, of real photographs where there are any."""

import hashlib
import io
import os
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from movq_jax.data.sources import open_split


class Pictures:
    """Encoded pictures: real ones of $MOVQ_JAX_TEST_DATA, else noise."""

    def __init__(self, subject):
        folder = os.environ.get("MOVQ_JAX_TEST_DATA")
        self._files = (
            sorted(Path(folder, "data", subject).rglob("*.jpg")) if folder else []
        )

    def jpeg(self, number):
        """Return the bytes of a JPEG file; another number, another picture."""
        if self._files:
            return self._files[number * 7 % len(self._files)].read_bytes()
        return self._encode(self._noise(number), "JPEG")

    def png(self, number, size=64):
        """Return the bytes of a PNG file of size x size pixels."""
        if self._files:
            image = Image.open(io.BytesIO(self.jpeg(number))).convert("RGB")
        else:
            image = self._noise(number)
        return self._encode(image.resize((size, size)), "PNG")

    def _noise(self, number):
        noise = np.random.default_rng(number).integers(0, 256, (8, 9, 3), np.uint8)
        return Image.fromarray(noise).resize((72, 64))

    def _encode(self, image, file_format):
        file = io.BytesIO()
        image.save(file, file_format)
        return file.getvalue()


@pytest.fixture(scope="session")
def faces():
    return Pictures("faces")


@pytest.fixture(scope="session")
def clothes():
    return Pictures("clothing")


@pytest.fixture(scope="session")
def scenes():
    return Pictures("ade20k")


@pytest.fixture(scope="session")
def coco_pictures():
    return Pictures("coco")


def write_files(root, files):
    """Write name -> bytes below a folder, and return it."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def tar_of(files):
    """Return the bytes of a tar with name -> bytes in it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def zip_of(files, method=zipfile.ZIP_DEFLATED):
    """Return the bytes of a zip with name -> bytes in it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


@pytest.fixture(scope="session")
def pack():
    """How to write files, {name: bytes}: `pack.folder(root, files)`, `.tar`, `.zip`."""

    class Pack:
        folder = staticmethod(write_files)
        tar = staticmethod(tar_of)
        zip = staticmethod(zip_of)

    return Pack


@pytest.fixture
def read_records():
    """A function that reads the records of a split: file name -> record."""

    def read_records(data_dir, dataset, split):
        place = SimpleNamespace(dataset=dataset, data_dir=str(data_dir))
        source = open_split(place, split)
        records = [source[index] for index in range(len(source))]
        return {record["filename"]: record for record in records}

    return read_records


@pytest.fixture
def publish(monkeypatch, tmp_path):
    """A function that makes other numbers the published ones of a split list.

    It takes the module that splits by it and the name of the list, and returns the
    path of a file of them.
    """

    def publish(module, name, numbers):
        content = "".join(f"{number}\n" for number in sorted(numbers))
        published = getattr(module, name)._replace(
            count=len(numbers), sha256=hashlib.sha256(content.encode()).hexdigest()
        )
        monkeypatch.setattr(module, name, published)
        path = tmp_path / published.file_name
        path.write_text("".join(f"{number:05d}.png\n" for number in sorted(numbers)))
        return str(path)

    return publish

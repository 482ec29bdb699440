"""Published weights that losses and metrics need: where they lie, and fetching them.

They lie in a folder of their own, under the names that they were published with:
`$MOVQ_JAX_WEIGHTS`, else `~/.cache/movq_jax/weights`. A file that is missing there is
fetched once; one that was put there by hand is as good. Either must have the SHA-256
that is listed here.
"""

import os
from pathlib import Path
from typing import NamedTuple

from movq_jax.errors import UserError
from movq_jax.pretrained.fetching import NotFetched, fetch, sha256_of

DEFAULT_FOLDER = "~/.cache/movq_jax/weights"
VARIABLE = "MOVQ_JAX_WEIGHTS"


class WeightsFile(NamedTuple):
    """A published file."""

    url: str
    size: int  # in bytes
    sha256: str
    licence: str


KNOWN_FILES = {
    "vgg16-397923af.pth": WeightsFile(
        url="https://download.pytorch.org/models/vgg16-397923af.pth",
        size=553_433_881,
        sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        licence="BSD-3-Clause (torchvision), after the authors' CC BY 4.0",
    ),
    # The heads of LPIPS v0.1 for VGG16.
    "vgg.pth": WeightsFile(
        url="https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/"
        "master/lpips/weights/v0.1/vgg.pth",
        size=7_289,
        sha256="a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        licence="BSD-2-Clause",
    ),
    "alexnet-owt-7be5be79.pth": WeightsFile(
        url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        size=244_408_911,
        sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        licence="BSD-3-Clause (torchvision)",
    ),
    # The heads of LPIPS v0.1 for AlexNet.
    "alex.pth": WeightsFile(
        url="https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/"
        "master/lpips/weights/v0.1/alex.pth",
        size=6_009,
        sha256="df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        licence="BSD-2-Clause",
    ),
    # The network of FID, out of TensorFlow's graph.
    "pt_inception-2015-12-05-6726825d.pth": WeightsFile(
        url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
        "pt_inception-2015-12-05-6726825d.pth",
        size=95_628_359,
        sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        licence="Apache-2.0",
    ),
}


def weights_folder(folder: Path | str = "") -> Path:
    """The folder given, which must exist, else the variable's, else the default.

    Raises:
      UserError: the folder given does not exist.
    """
    if not folder:
        return Path(os.environ.get(VARIABLE) or DEFAULT_FOLDER).expanduser()
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder} to have weights in: make it, or leave the "
            f"folder empty for ${VARIABLE}, else {DEFAULT_FOLDER}"
        )
    return folder


def find_or_fetch(name: str, folder: Path | str = "") -> Path:
    """The path of one of `KNOWN_FILES`, fetched if the folder does not have it.

    Its SHA-256 is checked at every call; a fetched file gets its name after that.

    Args:
      name: of the file.
      folder: see `weights_folder`.

    Raises:
      UserError: the file is another than the published one, or is not there and
        cannot be fetched; the message tells how to put it there by hand.
    """
    file = KNOWN_FILES[name]
    path = weights_folder(folder) / name
    try:
        if path.exists():
            _check(path, file)
        else:
            _fetch(path, file)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"the weights {path} cannot be read: {reason}") from error
    return path


def _check(path: Path, file: WeightsFile) -> None:
    digest = sha256_of(path)
    if digest != file.sha256:
        raise UserError(
            f"{path} is damaged, or is not what was published: its SHA-256 is "
            f"{digest}, not {file.sha256}; delete it, and it is fetched from {file.url}"
        )


def _fetch(path: Path, file: WeightsFile) -> None:
    try:
        fetch(file.url, path, size=file.size, sha256=file.sha256)
    except NotFetched as error:
        raise UserError(
            f"{path.name} is not in {path.parent} and could not be fetched from "
            f"{file.url}: {error}; try again, or put the file there by hand (SHA-256 "
            f"{file.sha256}), or let ${VARIABLE} name a folder that has it"
        ) from error

import os

import pytest

from movq_jax.errors import UserError
from movq_jax.regular_files import check_regular


def test_files_and_what_is_none(tmp_path):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    check_regular(tmp_path / "file")
    check_regular(tmp_path / "missing")  # who opens it says so
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UserError, match="no file but a folder, a pipe or a device"):
            check_regular(path)

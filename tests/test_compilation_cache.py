import os
import stat

import jax
import pytest

from movq_jax import compilation_cache


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home of its own; jax' setting is put back afterwards."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)


def test_the_folder_is_made_for_its_owner_alone(home):
    compilation_cache.enable()
    folder = home / ".cache" / "movq_jax" / "xla"
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_an_open_folder_is_closed(home):
    folder = home / ".cache" / "movq_jax" / "xla"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    compilation_cache.enable()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_users_own_choice_stays(home, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
    compilation_cache.enable()
    assert jax.config.jax_compilation_cache_dir is None
    assert not (home / ".cache").exists()


def test_a_place_that_cannot_be_made_is_a_warning(home):
    (home / ".cache").write_text("a file")
    with pytest.warns(UserWarning, match="no compilation cache in"):
        compilation_cache.enable()
    assert jax.config.jax_compilation_cache_dir is None


def test_somebody_elses_folder_is_not_used(home, monkeypatch):
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    with pytest.warns(UserWarning, match="it belongs to another user"):
        compilation_cache.enable()
    assert jax.config.jax_compilation_cache_dir is None

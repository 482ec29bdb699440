import shutil
from pathlib import Path

import pytest

from movq_jax import config as config_lib
from movq_jax.errors import UserError

ROOT = Path(__file__).parents[2]
MINIMAL = """
from movq_jax.config import schema
def get_config(arg=""):
    config = schema.tokenizer_config()
    config.seed = len(arg)
    return config
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working directory without configs, and none installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    return tmp_path


def write(path, text=MINIMAL):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["configs/mine.py", "mine", "mine.py", "configs/mine"])
def test_a_config_in_the_working_directory(elsewhere, name):
    write(elsewhere / "configs" / "mine.py")
    assert config_lib.load_config(name).seed == 0
    assert config_lib.load_config(f"{name}:abc").seed == 3


def test_any_path(elsewhere):
    path = write(elsewhere / "far" / "away.py")
    assert config_lib.load_config(str(path)).seed == 0
    assert config_lib.load_config("far/away.py:x").seed == 1


def test_an_installed_config_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    installed = shutil.copytree(ROOT / "configs", tmp_path / "site" / "configs")
    spec = type("Spec", (), {"submodule_search_locations": [str(installed)]})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    for name in ("configs/movq_photos.py", "movq_photos"):
        assert config_lib.find_config(name) == installed / "movq_photos.py"
    # One of the working directory comes first.
    mine = write(tmp_path / "configs" / "movq_photos.py")
    assert config_lib.find_config("movq_photos").samefile(mine)
    # A path elsewhere means that path.
    with pytest.raises(UserError, match="there is no config 'other/movq_photos.py'"):
        config_lib.find_config("other/movq_photos.py")


def test_an_unknown_config_is_answered_with_the_nearest(elsewhere):
    write(elsewhere / "configs" / "photos.py")
    write(elsewhere / "configs" / "_hidden.py")
    with pytest.raises(UserError) as error:
        config_lib.load_config("configs/fotos.py:tiny")
    assert str(error.value) == (
        "there is no config 'configs/fotos.py'; did you mean 'photos'? Known: photos"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(arg): return {}", "must return a ConfigDict"),
        ("def get_config() return 1", "mine.py, line 1: "),
        ("x = 1", "has no function get_config"),
        (
            "import nothing_of_that_name\ndef get_config(arg=''): pass",
            "mine.py, line 1: ModuleNotFoundError: No module named 'nothing_of_that",
        ),
        (
            "def get_config(arg=''):\n    return conf",
            "mine.py, line 2: NameError: name 'conf' is not defined",
        ),
        (
            "from movq_jax.config import schema\n"
            "def get_config(arg=''):\n"
            "    schema.tokenizer_config().train.num_steps = 1e5",
            "mine.py, line 3: TypeError: .*num_steps",
        ),
        (
            "from ml_collections import ConfigDict\n"
            "def get_config(arg=''): return ConfigDict({'seed': 0, 'model': {}})",
            "lacks loss, optim, data, train, eval, log, checkpoint; start it from",
        ),
    ],
)
def test_a_file_that_is_no_config(elsewhere, text, message):
    write(elsewhere / "mine.py", text)
    with pytest.raises(UserError, match=message):
        config_lib.load_config("mine:a")


def test_an_argument_for_a_config_that_takes_none(elsewhere):
    write(elsewhere / "mine.py", MINIMAL.replace('arg=""', "").replace("len(arg)", "1"))
    assert config_lib.load_config("mine").seed == 1
    with pytest.raises(UserError, match=r"mine.py takes no argument.*'tiny'"):
        config_lib.load_config("mine:tiny")


def test_overrides_are_applied_in_their_order(elsewhere):
    write(elsewhere / "mine.py")
    overrides = ["--config.seed=1", "train.batch_size=3", "--config.seed=2"]
    config = config_lib.load_config("mine", overrides)
    assert (config.seed, config.train.batch_size) == (2, 3)


def test_a_loaded_config_is_locked_everywhere(elsewhere):
    write(elsewhere / "mine.py")
    config = config_lib.load_config("mine", ["model.quantizer={'name': 'vq'}"])
    for section in (config, config.model, config.model.quantizer):
        with pytest.raises(AttributeError):
            section.new_key = 1


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("configs/movq_photos.py", "movq_photos"),
        ("movq_photos", "movq_photos"),
        ("/a/b/mine.py:tiny", "mine-tiny"),
        ("movq_f8:102m,tiny", "movq_f8-102m-tiny"),
        ("movq_f8:", "movq_f8"),
    ],
)
def test_run_name(spec, name):
    assert config_lib.run_name(spec) == name


def test_read_arg():
    assert config_lib.read_arg("", ["tiny"]) == set()
    assert config_lib.read_arg("67m, tiny", ["67m", "tiny"]) == {"67m", "tiny"}
    with pytest.raises(UserError, match="'tny'; did you mean 'tiny'"):
        config_lib.read_arg("67m,tny", ["67m", "tiny"])


def test_choose_one():
    assert config_lib.choose_one(set(), ["a", "b"]) == "a"
    assert config_lib.choose_one({"b", "tiny"}, ["a", "b"]) == "b"
    with pytest.raises(UserError, match="a and b exclude each other"):
        config_lib.choose_one({"a", "b"}, ["a", "b"])

import importlib
import pkgutil
import re
import subprocess
import sys

import pytest

import movq_jax
from movq_jax import __main__ as movq
from movq_jax import tools
from movq_jax.tools import TOOLS


def test_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+([.-]?\w+)?", movq_jax.__version__)


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'movq_jax' has no attribute 'laod'"):
        movq_jax.laod  # noqa: B018 (reading it is the test)


@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_has_a_main_and_a_help(name, capsys):
    module = importlib.import_module(f"movq_jax.tools.{name}")
    assert module.__doc__ and callable(module.main)
    assert movq.main([name, "--help"]) == 0
    assert f"movq {name}" in capsys.readouterr().out


def test_every_module_with_a_main_is_listed():
    found = {
        module.name
        for module in pkgutil.iter_modules(tools.__path__)
        if hasattr(importlib.import_module(f"movq_jax.tools.{module.name}"), "main")
    }
    assert found == set(TOOLS)


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_without_a_name_the_tools_are_listed(argv, capsys):
    assert movq.main(argv) == 0
    text = capsys.readouterr().out
    for name, what in TOOLS.items():
        assert re.search(rf"^  {name} +{re.escape(what)}$", text, re.MULTILINE)
    assert "movq train --config=configs/movq_photos.py" in text
    assert max(map(len, text.splitlines())) <= 80


def test_version_flag(capsys):
    assert movq.main(["--version"]) == 0
    assert capsys.readouterr().out == f"movq_jax {movq_jax.__version__}\n"


def test_a_misspelt_name_is_answered_with_the_nearest(capsys):
    assert movq.main(["recontruct", "--model=a"]) == 2
    assert "did you mean 'reconstruct'?" in capsys.readouterr().err
    assert movq.main(["zebra"]) == 2
    assert "no command zebra; `movq` lists them all" in capsys.readouterr().err


def test_a_tools_error_is_the_exit_code(capsys):
    assert movq.main(["decode", "--modle=runs/a"]) == 2
    assert "did you mean '--model'?" in capsys.readouterr().err


def test_as_a_module_and_without_waiting_for_jax():
    script = (
        "import runpy, sys; sys.argv = ['movq', '--version']\n"
        "try: runpy.run_module('movq_jax', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'jax', 'flax', 'tensorflow', 'grain'} & set(sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"movq_jax {movq_jax.__version__}\n"

import pytest
from ml_collections import ConfigDict

from movq_jax.errors import UserError
from movq_jax.sampling.options import SampleOptions


def test_of_a_config_or_json():
    fields = {
        "steps": 4,
        "order": {"name": "halton", "roll": True},
        "temperature": [1.0, 0.5],
    }
    options = SampleOptions.of(ConfigDict(fields))
    assert options == SampleOptions.of(fields)
    assert options.per_channel("temperature", 2) == (1.0, 0.5)
    assert options.per_channel("top_k", 3) == (0, 0, 0)
    assert options.schedule == {"name": "cosine"} and options.steps == 4
    assert SampleOptions.of({}) == SampleOptions()
    named = SampleOptions.of({"order": "halton", "schedule": "linear"})
    assert named.schedule == {"name": "linear"} and named.order == {"name": "halton"}
    with pytest.raises(UserError, match="sample is None; give a dict of options"):
        SampleOptions.of(None)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"steps": 0}, "sample.steps is 0; 1 is the least"),
        ({"steps": 2.5}, "sample.steps is 2.5; give a whole number"),
        ({"schedule": {"name": "sine"}}, "sample.schedule.name is 'sine'"),
        ({"temperature": -1.0}, "sample.temperature is -1.0; give a number from 0"),
        ({"temperature": (1.0, -0.1)}, r"sample.temperature is \(1.0, -0.1\)"),
        ({"temperature": float("nan")}, "sample.temperature is nan"),
        ({"temperature": ()}, r"sample.temperature is \(\)"),
        ({"top_p": 0.0}, "sample.top_p is 0.0; give a number above 0 and at most 1"),
        ({"top_p": 1.1}, "sample.top_p is 1.1"),
        ({"top_k": -1}, "sample.top_k is -1; give a whole number from 0"),
        ({"top_k": 1.5}, "sample.top_k is 1.5"),
        ({"guidance": -1.0}, "sample.guidance is -1.0"),
        ({"guidance": float("inf")}, "sample.guidance is inf"),
        ({"choice_temperature": "hot"}, "sample.choice_temperature is 'hot'"),
        ({"guidance_schedule": {"name": "ramp"}}, "sample.guidance_schedule.name"),
        ({"order": {"name": "raster"}}, "sample.order.name is 'raster'"),
        ({"step": 8}, "sample has no field 'step'; did you mean 'steps'"),
    ],
)
def test_bad_values(fields, words):
    with pytest.raises(UserError, match=words):
        SampleOptions.of(fields)


def test_another_number_of_channels():
    options = SampleOptions(top_k=(1, 2, 3))
    with pytest.raises(UserError, match="top_k has 3 values, but the prior has 2"):
        options.per_channel("top_k", 2)

"""Courses of values, sick and healthy, and the alarms they raise."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.training.alarms import UNTRAINED, Alarms
from movq_jax.training.losses import ADVERSARIAL_LOSSES

HINGE = ("loss.adversarial.name=hinge", "loss.adversarial.weight=0.5")


@pytest.fixture
def raised(tiny_config):
    """A function: lines of values, overrides -> (line, name, over) of each alarm."""

    def run(lines, *overrides):
        alarms = Alarms(tiny_config(*overrides))
        found = []
        for number, values in enumerate(lines):
            named = {f"train/{name}": value for name, value in values.items()}
            for alarm in alarms.check(number, named):
                assert alarm.message and not alarm.message.endswith(".")
                found.append((number, alarm.name, alarm.over))
        return found

    return run


def course(name, *parts):
    """Lines with one value: `(0.5, 3), (0.1, 2)` is 0.5 three times, then 0.1 twice."""
    return [{name: value} for value, times in parts for _ in range(times)]


def test_waiting_for_data_is_raised_once_until_it_is_over(raised):
    lines = course("data_wait_share", (0.1, 5), (0.4, 20), (0.18, 9), (0.1, 5), (1, 5))
    assert raised(lines) == [
        (7, "data_wait", False),
        (36, "data_wait", True),
        (41, "data_wait", False),
    ]


def test_what_wavers_around_a_threshold_does_not_flood_the_log(raised):
    lines = course("data_wait_share", (0.3, 3)) + course(
        "data_wait_share", *[(0.16, 1), (0.3, 1), (0.1, 1), (0.25, 1)] * 20
    )
    assert raised(lines) == [(2, "data_wait", False)]


def test_dying_codes(raised):
    lines = course("codebook_usage", (0.1, 3), (0.8, 10), (0.35, 8), (0.7, 5))
    assert raised(lines) == [
        (17, "codebook_usage_falls", False),
        (23, "codebook_usage_falls", True),
    ]


def test_of_two_books_the_poorer_one_counts(raised):
    rich = course("global_codebook_usage", (0.9, 30))
    poor = course("local_codebook_usage", (0.8, 15), (0.3, 15))
    both = [{**a, **b} for a, b in zip(rich, poor, strict=True)]
    assert raised(both) == [(19, "codebook_usage_falls", False)]


def test_one_rich_line_is_not_the_measure_of_usage(raised):
    lines = course("codebook_usage", (0.3, 10), (0.9, 1), (0.3, 30))
    assert raised(lines) == []


def test_a_spike_does_not_become_the_new_normal(raised):
    lines = course("loss_rec", (0.2, 20), (0.5, 80), (0.2, 3))
    assert raised(lines) == [(20, "loss_spike", False), (102, "loss_spike", True)]


def test_a_loss_begins_high_without_alarm(raised):
    falling = [{"loss_rec": 1 / (1 + step)} for step in range(100)]
    assert raised(falling) == []
    assert raised(course("loss_rec", (0.1, 5), (5.0, 5))) == []  # too early to know


def test_skipped_steps_are_an_alarm_while_they_grow(raised):
    lines = course("skipped_steps", (0, 3), (2, 1), (3, 1), (3, 20), (4, 1))
    assert raised(lines) == [
        (3, "steps_skipped", False),
        (14, "steps_skipped", True),
        (25, "steps_skipped", False),
    ]


def weights(*parts):
    return course("adv_weight", *parts)


def test_the_adaptive_weight_at_its_maximum(raised):
    options = (*HINGE, "loss.adversarial.adaptive_max=4.0")
    lines = weights((0.7, 5), (2.0, 5), (1.8, 5), (1.0, 5))
    assert raised(lines, *options) == [
        (7, "adaptive_weight_at_max", False),
        (17, "adaptive_weight_at_max", True),
    ]
    assert raised(lines, *options, "loss.adversarial.adaptive=false") == []
    assert raised(lines, "loss.adversarial.name=none") == []


def test_the_adaptive_weight_near_zero(raised):
    lines = weights((0.2, 5), (1e-4, 5), (2e-3, 5), (0.2, 3))
    assert raised(lines, *HINGE) == [
        (7, "adaptive_weight_near_zero", False),
        (17, "adaptive_weight_near_zero", True),
    ]


def discriminator(share, apart, times, name="hinge", **others):
    line = {
        "loss_disc": share * UNTRAINED[name].loss,
        "loss_adv": 0.1,
        "logits_real": apart / 2,
        "logits_fake": -apart / 2,
    }
    return [line | others] * times


@pytest.mark.parametrize("name", UNTRAINED)
def test_a_discriminator_that_wins(raised, name):
    options = (f"loss.adversarial.name={name}",)
    healthy = discriminator(0.8, 0.3, 10, name)
    lines = healthy + discriminator(0.01, 4, 20, name) + healthy
    expected = [(19, "discriminator_wins", False), (32, "discriminator_wins", True)]
    assert raised(lines, *options) == expected
    lines = healthy + discriminator(0.8, 40, 20, name) + healthy
    assert raised(lines, *options) == expected


def test_winning_in_its_warmup_is_its_right(raised):
    lines = discriminator(0.01, 4, 50)
    lines = [{k: v for k, v in line.items() if k != "loss_adv"} for line in lines]
    assert raised(lines, *HINGE) == []


@pytest.mark.parametrize("name", UNTRAINED)
def test_a_discriminator_that_guesses(raised, name):
    options = (f"loss.adversarial.name={name}",)
    lines = discriminator(1.0, 0.0, 30, name) + discriminator(0.8, 0.3, 5, name)
    assert raised(lines, *options) == [
        (19, "discriminator_blind", False),
        (32, "discriminator_blind", True),
    ]


def test_the_losses_of_an_untrained_discriminator():
    logits = jnp.zeros((1, 2, 2, 1))
    assert set(UNTRAINED) == set(ADVERSARIAL_LOSSES)
    for name, loss in ADVERSARIAL_LOSSES.items():
        assert UNTRAINED[name].loss == pytest.approx(
            float(loss.discriminator(logits, logits))
        )


@pytest.mark.parametrize("seed", range(3))
def test_a_healthy_noisy_training_is_quiet(raised, seed):
    rng = np.random.default_rng(seed)

    def noisy(value, spread):
        return value * math.exp(spread * rng.standard_normal())

    lines = [
        {
            "loss_rec": noisy(0.05 + 0.5 / (1 + step / 20), 0.15),
            "codebook_usage": min(1.0, noisy(0.7, 0.05)),
            "adv_weight": noisy(0.3, 0.7),
            "loss_adv": 0.1 * rng.standard_normal(),
            "loss_disc": 0.9 + 0.05 * rng.standard_normal(),
            "logits_real": 0.1 + 0.1 * rng.standard_normal(),
            "logits_fake": -0.1 + 0.1 * rng.standard_normal(),
            "skipped_steps": 0.0,
            "data_wait_share": abs(0.05 * rng.standard_normal()),
            "grad_norm": float("nan"),
        }
        for step in range(1000)
    ]
    assert raised(lines, *HINGE) == []


def test_lines_of_one_step_and_few_images_waver_without_alarm(raised):
    rng = np.random.default_rng(0)
    lines = [{"loss_rec": 0.1 * math.exp(0.4 * x)} for x in rng.standard_normal(500)]
    assert raised(lines) == []


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), "text"])
def test_what_is_no_number_says_nothing(raised, value):
    names = ("loss_rec", "codebook_usage", "skipped_steps", "data_wait_share")
    assert raised([dict.fromkeys(names, value)] * 50, *HINGE) == []

"""What goes wrong in a training without stopping it, found in the logged values.

An alarm is raised once when it begins, and again only after it was over: what is bad
must have been good for some log lines in between. All windows are counted in log
lines, so `config.log.every` is the unit of time here.
"""

import math
import statistics
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from movq_jax.config import kind_of

# How many log lines in a row must say the same before an alarm is raised or over. One
# line is a mean over `log.every` steps already; more guard against a lone bad one.
AT_ONCE = 1  # what is rare and lasts no longer
SOON = 3
LATER = 10  # what a healthy training shows for a while, too
LATE = 20  # what is normal while the discriminator is still young

# The adaptive weight averages to nearly its maximum only if nearly every step is there.
AT_MAX, BELOW_MAX = 0.98, 0.8
# Of loss.adversarial.weight, so this is the ratio of the gradients: at the last layer
# the discriminator's are a thousand times those of the reconstruction.
NEAR_ZERO, ABOVE_ZERO = 1e-3, 1e-2

# The discriminator's loss as a share of that of one that knows nothing. At 5 % a
# logistic one gives the truth a probability of 97 %, and a hinge one has hardly a logit
# within the margin: it has nothing left to learn.
WINS, CONTESTED = 0.05, 0.15
# Within 2 % of knowing nothing, or worse. Close to it is where a generator that holds
# its own keeps the discriminator, so this is a narrow band, and has to last.
BLIND, SEEING = 0.98, 0.95

# Codes in use, as a share of the best so far: half is a collapse, not a fluctuation.
USAGE_FALLEN, USAGE_BACK = 0.5, 0.7
USAGE_WINDOW = 5  # lines whose median counts as reached, so that no outlier does

SPIKE, NO_SPIKE = 2.0, 1.5  # times the median of the lines before
# And so many median deviations of the logarithm, four standard deviations of a normal
# one: lines of few steps and few images waver by a factor of two all the time.
SPIKE_SPREADS = 6.0
SPIKE_WINDOW = 50
SPIKE_HISTORY = 10  # lines before there is a median to speak of

WAITING, FED = 0.20, 0.15  # share of the time spent waiting for data


class Alarm(NamedTuple):
    """An alarm that begins, or is over."""

    name: str
    message: str  # one sentence: what is wrong, and what to do
    over: bool = False


class Untrained(NamedTuple):
    """Where an adversarial loss stands when the discriminator knows nothing or all."""

    loss: float  # with all logits at zero
    apart: float  # logits of real and fake that are further apart tell all


# Hinge has no loss where real and fake are 2 apart, logistic never: at 15 the odds of a
# mistake are below 1 : 1000. What is far beyond also tells that the logits run away.
UNTRAINED = {
    "hinge": Untrained(1.0, 10.0),
    "vanilla": Untrained(math.log(2), 15.0),
    "non_saturating": Untrained(2 * math.log(2), 15.0),
}

Values = Mapping[str, float]
# Whether the values are bad, good, or neither (None): too little is known, or they lie
# between the two thresholds, where an alarm that is on stays on.
Verdict = bool | None


class Alarms:
    """Watches the values of a run's log lines.

    Example:
        >>> for alarm in Alarms(config).check(step, {"train/data_wait_share": 0.4}):
        ...     print(alarm.name, alarm.message)
    """

    def __init__(self, config: ConfigDict) -> None:
        is_prior = kind_of(config) == "prior"
        loss = "train/loss" if is_prior else "train/loss_rec"
        self._watches = [
            _Watch("codebook_usage_falls", LATER // 2, _Usage()),
            _Watch("loss_spike", AT_ONCE, _Spike(loss)),
            _Watch("steps_skipped", AT_ONCE, _Skipped(), calm=LATER),
            _Watch("data_wait", SOON, _data_wait),
        ]
        if is_prior:  # which has neither a discriminator nor books of its own
            return
        adversarial = config.loss.adversarial
        if adversarial.name in UNTRAINED:
            self._watches += _discriminator_watches(UNTRAINED[adversarial.name])
            if adversarial.adaptive and adversarial.weight > 0:
                self._watches += _weight_watches(adversarial)

    def check(self, step: int, values: Mapping[str, Any]) -> list[Alarm]:
        """What begins or is over with this log line.

        Args:
          step: of the log line.
          values: name -> value, such as 'train/loss_rec'; what is missing, no number
            or not finite says nothing.
        """
        del step  # a stage may have alarms that depend on it
        known = {
            name: value
            for name, value in values.items()
            if isinstance(value, (int, float)) and math.isfinite(value)
        }
        alarms = (watch.update(known) for watch in self._watches)
        return [alarm for alarm in alarms if alarm is not None]


class _Watch:
    """Turns verdicts, line by line, into an alarm's beginning and end."""

    def __init__(
        self,
        name: str,
        patience: int,
        judge: Callable[[Values], tuple[Verdict, str]],
        calm: int = SOON,
    ) -> None:
        """`patience` bad lines in a row begin the alarm, `calm` good ones end it."""
        self._name, self._judge = name, judge
        self._needed = {False: patience, True: calm}
        self._on = False
        self._contrary = 0  # lines in a row that contradict `_on`

    def update(self, values: Values) -> Alarm | None:
        verdict, message = self._judge(values)
        if verdict is None:
            return None
        self._contrary = self._contrary + 1 if verdict != self._on else 0
        if self._contrary < self._needed[self._on]:
            return None
        self._on, self._contrary = verdict, 0
        if self._on:
            return Alarm(self._name, message)
        return Alarm(self._name, f"{self._name} is over", over=True)


def _between(bad: bool, good: bool) -> Verdict:
    if bad:
        return True
    return False if good else None


def _data_wait(values: Values) -> tuple[Verdict, str]:
    share = values.get("train/data_wait_share")
    if share is None:
        return None, ""
    return _between(share > WAITING, share < FED), (
        f"{share:.0%} of the time goes into waiting for data: raise "
        "config.data.num_threads, num_workers or prefetch, set decode_once for small "
        "sets, or store smaller images"
    )


class _Usage:
    """Codes in use, against the best median of a few lines so far.

    Of several books, the one with the smallest share in use.
    """

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=USAGE_WINDOW)
        self._best = 0.0

    def __call__(self, values: Values) -> tuple[Verdict, str]:
        books = [
            value
            for name, value in values.items()
            if name.startswith("train/") and name.endswith("codebook_usage")
        ]
        if not books:
            return None, ""
        usage = min(books)
        self._latest.append(usage)
        if len(self._latest) == USAGE_WINDOW:
            self._best = max(self._best, statistics.median(self._latest))
        bad = usage < USAGE_FALLEN * self._best
        return _between(bad, usage > USAGE_BACK * self._best), (
            f"only {usage:.1%} of the codes are in use, after {self._best:.1%}: codes "
            "die. Lower the learning rate, estimate the codebook from data "
            "(config.train.codebook_init), replace dead codes "
            "(config.train.codebook_update.revive_below), or start the discriminator "
            "later"
        )


class _Spike:
    """A loss against the median of its latest lines."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._latest: deque[float] = deque(maxlen=SPIKE_WINDOW)

    def __call__(self, values: Values) -> tuple[Verdict, str]:
        loss = values.get(self._key)
        if loss is None:
            return None, ""
        if len(self._latest) < SPIKE_HISTORY:
            self._latest.append(loss)
            return None, ""
        median = statistics.median(self._latest)
        spread = statistics.median(abs(_log(x) - _log(median)) for x in self._latest)
        spike = median * max(SPIKE, math.exp(SPIKE_SPREADS * spread))
        if loss <= spike:  # else it would soon be the new normal
            self._latest.append(loss)
        return _between(loss > spike, loss < NO_SPIKE * median), (
            f"{self._key} is {loss:.4g}, but its median of the last "
            f"{len(self._latest)} log lines is {median:.4g}: if it stays there, begin "
            "anew with a lower learning rate or with config.optim.clip"
        )


def _log(loss: float) -> float:
    return math.log(max(loss, 1e-12))


class _Skipped:
    """The count of skipped steps: bad while it grows."""

    def __init__(self) -> None:
        self._count = 0.0

    def __call__(self, values: Values) -> tuple[Verdict, str]:
        count = values.get("train/skipped_steps")
        if count is None:
            return None, ""
        new, self._count = count - self._count, count
        return new > 0, (
            f"{new:.0f} of the steps since the last log line had a non-finite loss or "
            f"gradient and were skipped, {count:.0f} in all: lower the learning rate "
            "or set config.optim.clip"
        )


def _weight_watches(adversarial: ConfigDict) -> list[_Watch]:
    maximum = adversarial.weight * adversarial.adaptive_max
    least = adversarial.weight

    def at_max(values: Values) -> tuple[Verdict, str]:
        weight = values.get("train/adv_weight")
        if weight is None:
            return None, ""
        bad, good = weight >= AT_MAX * maximum, weight < BELOW_MAX * maximum
        return _between(bad, good), (
            f"the adaptive weight stands at its maximum, {maximum:.4g}: the "
            "discriminator hardly has a gradient at the reconstructions. Regularize it "
            "(config.loss.adversarial.r1 or lecam), or lower adaptive_max where it "
            "drowns the reconstruction"
        )

    def near_zero(values: Values) -> tuple[Verdict, str]:
        weight = values.get("train/adv_weight")
        if weight is None:
            return None, ""
        bad, good = weight < NEAR_ZERO * least, weight > ABOVE_ZERO * least
        return _between(bad, good), (
            f"the adaptive weight fell to {weight:.2g}: the discriminator's gradients "
            "explode, and it no longer counts. Lower config.optim.disc.learning_rate, "
            "or regularize it (config.loss.adversarial.r1 or lecam)"
        )

    return [
        _Watch("adaptive_weight_at_max", SOON, at_max),
        _Watch("adaptive_weight_near_zero", SOON, near_zero),
    ]


def _discriminator_watches(untrained: Untrained) -> list[_Watch]:
    # Only while it pushes: in its warm-up it learns against a generator that does not
    # answer, and winning is what it should do.
    def state(values: Values) -> tuple[float, float] | None:
        names = ("loss_disc", "loss_adv", "logits_real", "logits_fake")
        if not all(f"train/{name}" in values for name in names):
            return None
        share = values["train/loss_disc"] / untrained.loss
        return share, values["train/logits_real"] - values["train/logits_fake"]

    def wins(values: Values) -> tuple[Verdict, str]:
        if (found := state(values)) is None:
            return None, ""
        share, apart = found
        bad = share < WINS or apart > untrained.apart
        good = share > CONTESTED and apart < untrained.apart / 2
        return _between(bad, good), (
            f"the discriminator wins outright (loss {share * untrained.loss:.3g}, "
            f"logits {apart:.3g} apart), and its push says little: lower "
            "config.optim.disc.learning_rate, augment what it sees, or set "
            "config.loss.adversarial.r1 or lecam"
        )

    def blind(values: Values) -> tuple[Verdict, str]:
        if (found := state(values)) is None:
            return None, ""
        share, _ = found
        return _between(share > BLIND, share < SEEING), (
            f"the discriminator's loss has been that of guessing, "
            f"{untrained.loss:.3g}, for {LATE} log lines: it tells nothing. Raise "
            "config.optim.disc.learning_rate, weaken its regularizers, or give it more "
            "warmup"
        )

    return [
        _Watch("discriminator_wins", LATER, wins),
        _Watch("discriminator_blind", LATE, blind),
    ]

"""`python -m bench check` of tasks: each fault is found by the check that is about it, and what is sound passes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.__main__ import main
from bench.check import tasks
from bench.check.tasks import CHECKS, Subject
from tests.launching import STUBS


@pytest.fixture(autouse=True)
def faulty_tasks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(STUBS)
    monkeypatch.setattr(tasks, "NO_TIME_LIMIT", 200)
    return


USABLE, OBSERVATIONS, RESETS, REPLAYS, GOES_ON, ALONE, PROCESS, ENDS = CHECKS

FAULTS = [
    ("NoSeed", RESETS, "after another reset, number 0 of the observation of the reset is"),
    ("Remembers", RESETS, "after another reset, number 0"),
    ("NoisySteps", REPLAYS, "played again, number 0 of the observation of step 1 is"),
    ("NoisySteps", GOES_ON, "15 steps later, number 0"),
    ("ReadsTheClock", REPLAYS, "played again"),
    ("GlobalNumbers", ALONE, "beside another environment, number 0"),
    ("OfItsProcess", PROCESS, "in another process, number 0 of the observation of the reset"),
    (
        "TerminatesAtTheLimit",
        ENDS,
        "3 episodes of random actions all terminated after 20 steps: if that is a time",
    ),
    ("Endless", ENDS, "no end after 200 steps, and it has no time limit: register it with max_episode_steps"),
    ("NotFinite", OBSERVATIONS, "step 4 gives an observation that is not finite"),
    ("AnotherShape", OBSERVATIONS, "the environment returned 3 observations; its space declares 2"),
    ("BeyondItsBounds", OBSERVATIONS, r"number 1 of the observation of step 11 is 11; declared is -1 to 10"),
    ("DiscreteActions", USABLE, "has actions in a Discrete space; it cannot be trained"),
    ("UnboundedActions", USABLE, r"has actions without bounds \(number 0 of 1\); it cannot be trained"),
    ("Images", USABLE, r"has images of shape \(8, 8, 3\) as observations \(in 'camera'\)"),
    ("Words", USABLE, r"has observations in a Text space \(in 'mission'\); it cannot be trained"),
]


@pytest.mark.seconds
@pytest.mark.parametrize(("name", "what", "wrong"), FAULTS)
def test_a_fault_is_found(name: str, what: str, wrong: str) -> None:
    with pytest.raises((AssertionError, ValueError), match=wrong):
        CHECKS[what](Subject(f"faulty_tasks:{name}-v0"))


@pytest.mark.parametrize(
    "name",
    ["faulty_tasks:Sound-v0", "Pendulum-v1", pytest.param("cartpole-swingup", marks=pytest.mark.slow)],
)
def test_what_is_sound_passes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", name]) == 0
    out = capsys.readouterr().out
    assert out.count("  ok    ") == len(CHECKS)
    assert out.startswith(f"{name}: ")
    assert "all rules hold" in out


def test_what_cannot_be_trained_stops_the_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "faulty_tasks:DiscreteActions-v0"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "faulty_tasks:DiscreteActions-v0: cannot be used",
        f"  FAIL  {USABLE}: faulty_tasks:DiscreteActions-v0 has actions in a Discrete space; it cannot be trained, "
        "since the algorithms here choose real numbers (a Box of floats)",
        "1 rule is broken",
    ]


@pytest.mark.seconds
def test_an_error_in_a_step_is_reported_with_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "faulty_tasks:Raises-v0"]) == 1
    assert "ArithmeticError: the simulation is unstable (faulty_tasks.py:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "faulty_tasks:Sond-v0",
            "faulty_tasks registers no 'Sond-v0' with Gymnasium; did you mean 'faulty_tasks:Sound-v0'",
        ),
        ("pendulum-v1", "unknown task 'pendulum-v1'; did you mean 'Pendulum-v1'"),
        ("sacc", "no algorithm 'sacc'; did you mean 'sac'"),
        ("sac:tua=1", "sac has no setting 'tua'"),
    ],
)
def test_an_unknown_name(name: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", name]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1

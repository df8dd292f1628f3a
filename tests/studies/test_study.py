"""From a study file and a command line to jobs: order, labels, folders, identities, and mistakes."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench.errors import UserError
from bench.names import is_safe_name
from bench.studies.file import load_study, study_names
from bench.studies.job import Job, RunSettings
from bench.studies.request import override
from bench.studies.study import Study
from tests.launching import ALGORITHMS

SETTINGS = RunSettings(steps=1000, random_steps=100, eval_every=500)


def study(**changes: Any) -> Study:
    base = Study("s", "S", ("qsm", "sac"), ("Pendulum-v1", "cartpole-balance"), (0, 1), SETTINGS)
    return dataclasses.replace(base, **changes)


def labels(*specs: str, **changes: Any) -> dict[str, str]:
    """The label of each spec alone."""
    return {spec: study(algos=(spec,), **changes).jobs()[0].label for spec in specs}


# -- expansion ---------------------------------------------------------------------------------------


def test_expansion_goes_seed_by_seed() -> None:
    assert [str(job.path) for job in study(seeds=(0, 7)).jobs()] == [
        "s/Pendulum-v1/qsm/seed-0",
        "s/Pendulum-v1/sac/seed-0",
        "s/cartpole-balance/qsm/seed-0",
        "s/cartpole-balance/sac/seed-0",
        "s/Pendulum-v1/qsm/seed-7",
        "s/Pendulum-v1/sac/seed-7",
        "s/cartpole-balance/qsm/seed-7",
        "s/cartpole-balance/sac/seed-7",
    ]


def test_what_is_named_twice_runs_once() -> None:
    jobs = study(
        algos=("qsm", "qsm:M_q=50", "qsm:T=5,M_q=50.0", "qsm:M_q=120", "qsm:M_q=1.2e2"),
        envs=("Pendulum-v1", "Pendulum-v1"),
        seeds=(0,),
    ).jobs()
    assert [job.label for job in jobs] == ["qsm", "qsm-M_q=120"]


def test_labels_are_sorted_canonical_and_without_defaults() -> None:
    assert labels(
        "qsm", "qsm:T=20,M_q=120", "qsm:M_q=120,T=20", "qsm:M_q=50", "qsm:actor_lr=3e-4", "qsm:actor_lr=1e-5",
        "qsm:hidden=256x256", "qsm:hidden=512x512", "qsm:score_scale=true", "sac:target_entropy_per_dim=-1.0",
    ) == {
        "qsm": "qsm",
        "qsm:T=20,M_q=120": "qsm-M_q=120-T=20",
        "qsm:M_q=120,T=20": "qsm-M_q=120-T=20",
        "qsm:M_q=50": "qsm",
        "qsm:actor_lr=3e-4": "qsm",
        "qsm:actor_lr=1e-5": "qsm-actor_lr=1e-05",
        "qsm:hidden=256x256": "qsm-hidden=256x256",
        "qsm:hidden=512x512": "qsm",
        "qsm:score_scale=true": "qsm-score_scale=true",
        "sac:target_entropy_per_dim=-1.0": "sac-target_entropy_per_dim=-1",
    }  # fmt: skip


def test_a_default_is_what_the_study_sets() -> None:
    config = {"hidden": [64, 64], "T": 3}
    assert labels("qsm:hidden=64x64", "qsm:T=5", "qsm:T=3", config=config) == {
        "qsm:hidden=64x64": "qsm",
        "qsm:T=5": "qsm-T=5",
        "qsm:T=3": "qsm",
    }
    jobs = study(config=config, algo={"sac": {"tau": 0.01}}, seeds=(0,)).jobs()
    assert {job.algo: (job.config["hidden"], job.config["tau"]) for job in jobs} == {
        "qsm": ([64, 64], 0.005),
        "sac": ([64, 64], 0.01),
    }
    assert "T" not in jobs[1].config  # sac has no such field, and is not given one


def test_the_special_goes_before_the_general() -> None:
    given = study(
        algos=("qsm", "qsm:M_q=4"),
        seeds=(0,),
        config={"M_q": 1.0},
        algo={"qsm": {"M_q": 2.0}},
        env={"cartpole-balance": {"qsm": {"M_q": 3.0}}},
    )
    assert {(job.env, job.label): job.config["M_q"] for job in given.jobs()} == {
        ("Pendulum-v1", "qsm"): 2.0,
        ("cartpole-balance", "qsm"): 3.0,
        ("Pendulum-v1", "qsm-M_q=4"): 4.0,
        ("cartpole-balance", "qsm-M_q=4"): 4.0,
    }


def test_a_common_setting_is_left_out_where_an_algorithm_s_own_critic_makes_no_use_of_it() -> None:
    plain, own = study(algos=("qsm", "dime"), config={"tau": 0.02}).jobs()[:2]
    assert (plain.config["tau"], own.config["tau"]) == (0.02, 0.005)  # DIME's critic has no target networks
    with pytest.raises(UserError, match=r"tau = 0\.02: the critic distributional makes no use of tau"):
        study(algos=("dime:tau=0.02",)).jobs()


def test_labels_beside_settings_of_one_task() -> None:
    def cells(*specs: str, envs: tuple[str, ...] = ("Pendulum-v1", "cartpole-balance")) -> dict[Any, float]:
        given = study(algos=specs, envs=envs, seeds=(0,), env={"cartpole-balance": {"qsm": {"M_q": 120.0}}})
        jobs = given.jobs()
        assert len({job.path for job in jobs}) == len(jobs)
        return {(job.env, job.label): job.config["M_q"] for job in jobs}

    pendulum, cartpole = "Pendulum-v1", "cartpole-balance"
    assert cells("qsm", "qsm:M_q=120", "qsm:M_q=50") == {
        (pendulum, "qsm"): 50.0,
        (cartpole, "qsm"): 120.0,
        (pendulum, "qsm-M_q=120"): 120.0,
        (cartpole, "qsm-M_q=120"): 120.0,
        (pendulum, "qsm-M_q=50"): 50.0,
        (cartpole, "qsm-M_q=50"): 50.0,
    }
    # A task asked for alone finds its runs where they were when it was asked for among others.
    assert cells("qsm:M_q=120", envs=(cartpole,)) == {(cartpole, "qsm-M_q=120"): 120.0}
    assert cells("qsm:M_q=50", envs=(pendulum,)) == {(pendulum, "qsm-M_q=50"): 50.0}


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_labels_and_paths_are_safe(algo: str) -> None:
    config = study(algos=(algo,)).jobs()[0].config
    numbers = [key for key, value in config.items() if type(value) is float and 0 < value < 1]
    spec = f"{algo}:" + ",".join(f"{key}={config[key] * 0.987654321}" for key in numbers[:4])
    for job in study(algos=(algo, spec)).jobs():
        assert all(is_safe_name(part) for part in job.path.parts)
        assert len("-".join(job.path.parts[1:]) + ".log") < 255


def test_a_label_that_is_too_long() -> None:
    config = study(algos=("dql-bc",)).jobs()[0].config
    spec = "dql-bc:" + ",".join(f"{k}={v * 0.987654321}" for k, v in config.items() if type(v) is float and v)
    with pytest.raises(UserError, match="cannot name a folder"):
        study(algos=(spec,)).jobs()


# -- identity ----------------------------------------------------------------------------------------


def test_the_hash_of_a_job_stays_what_it_is() -> None:
    # Changed on purpose? Then every run on disk counts as one of another configuration: raise the format.
    job = Job("s", "Pendulum-v1", "sac", "sac", 3, {"hidden": [256, 256], "tau": 0.005}, RunSettings())
    assert job.hash == "7b9151e8c4736b8327e8ab39a60ababf2ecb4d3620caacef0f306dbf0eadbd07"


def test_the_hash_tells_what_is_measured_and_nothing_else() -> None:
    job = study().jobs()[0]
    same = [dataclasses.replace(job, study="other"), dataclasses.replace(job, label="name")]
    assert {other.hash for other in same} == {job.hash}
    different = [
        dataclasses.replace(job, seed=5),
        dataclasses.replace(job, env="Hopper-v5"),
        dataclasses.replace(job, algo="sac"),
        dataclasses.replace(job, config={**job.config, "tau": 0.1}),
        *(
            dataclasses.replace(job, settings=dataclasses.replace(job.settings, **{name: value}))
            for name, value in (
                ("steps", 2000), ("random_steps", 200), ("eval_every", 250), ("eval_episodes", 3),
                ("eval_mode", "greedy"), ("action_repeat", 2), ("replay_size", 10), ("final_episodes", 0),
            )
        ),
    ]  # fmt: skip
    assert len({other.hash for other in [job, *different]}) == len(different) + 1
    assert {f.name for f in dataclasses.fields(RunSettings)} <= set(job.identity()["settings"])


def test_a_job_survives_json() -> None:
    for job in study(algos=("qsm:M_q=120", "td3")).jobs():
        back = Job.from_dict(json.loads(json.dumps(job.to_dict())))
        assert back == job
        assert back.hash == job.hash
        assert back.path == job.path


# -- the studies that come with the suite ------------------------------------------------------------


@pytest.mark.parametrize("name", study_names())
def test_studies_load_and_expand(name: str) -> None:
    found = load_study(name)
    assert found.name == name
    jobs = found.jobs()
    assert len(jobs) == len({job.path for job in jobs}) == len({job.hash for job in jobs})
    assert len(jobs) == len(found.algos) * len(found.envs) * len(found.seeds)


def test_the_paper_study_is_the_paper_s() -> None:
    jobs = {(job.env, job.algo): job for job in load_study("paper").jobs() if job.seed == 0}
    assert len({env for env, _ in jobs}) == 8
    weights = {env: jobs[env, "qsm"].config["M_q"] for env, _ in jobs}
    assert {env for env, weight in weights.items() if weight == 120} == {"quadruped-walk", "humanoid-walk"}
    assert {jobs[env, algo].label for env, algo in jobs} == {"qsm", "dql", "sac", "td3", "random"}
    assert jobs["cheetah-run", "qsm"].config["hidden"] == [512, 512]
    assert jobs["cheetah-run", "sac"].config["hidden"] == [256, 256]
    settings = jobs["cheetah-run", "qsm"].settings
    assert (settings.steps, settings.random_steps, settings.action_repeat) == (1_000_000, 10_000, 1)


# -- the command line --------------------------------------------------------------------------------


def test_overrides_change_the_grid() -> None:
    changed = override(study(), algos="sac td3:tau=0.01", envs="Hopper-v5", seeds="3")
    assert changed.algos == ("sac", "td3:tau=0.01")
    assert changed.envs == ("Hopper-v5",)
    assert changed.seeds == (0, 1, 2)
    assert changed.name == "s"
    assert override(study()) == study()


@pytest.mark.parametrize(
    ("given", "seeds"),
    [("5", (0, 1, 2, 3, 4)), ("0,3,7", (0, 3, 7)), ("3,", (3,)), ("4 4 2", (4, 2)), ("1", (0,))],
)
def test_seeds(given: str, seeds: tuple[int, ...]) -> None:
    assert override(study(), seeds=given).seeds == seeds


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"steps": "5000"}, "s-steps=5000"),
        ({"steps": "5e3"}, "s-steps=5000"),
        ({"steps": "5_000"}, "s-steps=5000"),
        ({"steps": "1000"}, "s"),
        (
            {"steps": "2000", "settings": "eval_every=1e3 eval_episodes=3"},
            "s-eval_episodes=3-eval_every=1000-steps=2000",
        ),
        ({"settings": "eval_mode=greedy,final_episodes=0"}, "s-eval_mode=greedy-final_episodes=0"),
        ({"settings": "eval_every=500"}, "s"),
    ],
)
def test_other_settings_show_in_the_folder_s_name(given: dict[str, str], name: str) -> None:
    changed = override(study(), **given)
    assert changed.name == name
    assert is_safe_name(name)
    assert changed.jobs()[0].path.parts[0] == name


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seeds": "0"}, "seeds = 0: expected a number from 1"),
        ({"seeds": "-1"}, "seeds = -1: expected a number from 1"),
        ({"seeds": "x"}, r"SEEDS=x: expected how many \(SEEDS=5\) or which \(SEEDS=0,3,7\)"),
        ({"seeds": "1.5"}, "SEEDS=1.5"),
        ({"seeds": ","}, "expected how many, or a list"),
        ({"seeds": "0,-1"}, "expected how many, or a list of whole numbers from 0 on"),
        ({"seeds": "99999999"}, "expected a number from 1 to 10000"),
        ({"steps": "0"}, "steps = 0: expected a whole number from 1 on"),
        ({"steps": "-5"}, "steps = -5: expected a whole number from 1 on"),
        ({"steps": "many"}, "STEPS=many: expected a whole number"),
        ({"steps": "1e-3"}, "STEPS=1e-3: expected a whole number"),
        ({"steps": "inf"}, "STEPS=inf: expected a whole number"),
        ({"steps": "1e300"}, "expected a whole number from 1 on"),
        ({"settings": "eval_every"}, "'eval_every': expected name=value"),
        ({"settings": "eval_evry=5"}, r"no setting 'eval_evry' of a run; did you mean 'eval_every'"),
        ({"settings": "eval_every=x"}, "eval_every=x: expected a whole number"),
        ({"settings": "random_steps=-1"}, "random_steps = -1: expected a whole number from 0 on"),
        ({"settings": "eval_mode=best"}, "eval_mode = 'best': expected authors, sample or greedy"),
        ({"settings": "action_repeat=3"}, "steps = 1000: not a multiple of action_repeat = 3"),
    ],
)
def test_mistakes_on_the_command_line(given: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        override(study(), **given)
    assert "\n" not in str(caught.value)


def test_two_runs_never_share_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.envs.tasks.spec", lambda name: None)
    with pytest.raises(UserError, match="2 different runs would share the folder a_b/qsm"):
        study(envs=("a/b", "a_b"), algos=("qsm",), env={"a/b": {"qsm": {"T": 3}}}).jobs()


# -- mistakes in study files -------------------------------------------------------------------------

GOOD = 'algos = ["qsm", "sac"]\nenvs = ["Pendulum-v1"]\nseeds = 2\n'


def load(folder: Path, text: str | bytes, name: str = "mine.toml") -> Study:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_study(str(path))


def test_a_study_of_one_s_own(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        'title = "Mine"\nalgos = ["qsm:T=3", "sac"]\nenvs = ["Pendulum-v1"]\nseeds = [1, 4]\n'
        "[run]\nsteps = 1e2\n[config]\ntau = 0.01\nM_q = 3\n[algo.sac]\ntau = 0.02\n"
        '[env."Hopper-v5".qsm]\nM_q = 7\n',
    )
    assert (found.name, found.title, found.seeds, found.settings.steps) == ("mine", "Mine", (1, 4), 100)
    jobs = found.jobs()
    assert [(job.label, job.config["tau"]) for job in jobs[:2]] == [("qsm-T=3", 0.01), ("sac", 0.02)]
    assert jobs[0].config["M_q"] == 3.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("algos = [}", r"mine.toml: not valid TOML: .*line 1"),
        (b"\xff\xfe", "mine.toml: not valid TOML"),
        ("seeds = 2\nseeds = 3", "not valid TOML"),
        ("", "mine.toml: algos: missing"),
        ('algos = ["qsm"]', "mine.toml: envs: missing"),
        ('algos = ["qsm"]\nenvs = ["Pendulum-v1"]', "mine.toml: seeds: missing"),
        (GOOD + 'alogs = ["sac"]', r"mine.toml: alogs: no such key; did you mean 'algos'"),
        (GOOD.replace('["qsm", "sac"]', '"qsm"'), "mine.toml: algos: expected a list of names, not 'qsm'"),
        (GOOD.replace('["qsm", "sac"]', "[]"), "mine.toml: algos: expected a list of names"),
        (GOOD.replace('"sac"', "3"), "mine.toml: algos: expected a list of names"),
        (GOOD.replace("sac", "sax"), r"mine.toml: algos: no algorithm 'sax'; did you mean 'sac'"),
        (GOOD.replace("sac", "sac:tua=1"), r"mine.toml: algos: sac has no setting 'tua'; did you mean 'tau'"),
        (
            GOOD.replace("Pendulum-v1", "Pendulun-v1"),
            r"mine.toml: envs: unknown task 'Pendulun-v1'; did you mean",
        ),
        (GOOD.replace("2", "0"), "mine.toml: seeds: seeds = 0: expected a number from 1"),
        (GOOD.replace("2", '"two"'), "mine.toml: seeds: .*expected how many, or a list"),
        (GOOD.replace("2", "true"), "mine.toml: seeds: .*expected how many"),
        (GOOD.replace("2", "[0, 1.5]"), "mine.toml: seeds: .*expected how many"),
        (GOOD + "title = 3", "mine.toml: title: expected text"),
        (GOOD + "run = 3", "mine.toml: run: expected a table, not 3"),
        (GOOD + "[run]\nstep = 3", r"mine.toml: run: no setting 'step' of a run; did you mean 'steps'"),
        (GOOD + "[run]\nsteps = 1.5", "mine.toml: run: steps = 1.5: expected a whole number"),
        (GOOD + '[run]\nsteps = "x"', "mine.toml: run: steps = 'x': expected a whole number"),
        (GOOD + "[run]\nsteps = -1", "mine.toml: run: steps = -1: expected a whole number from 1 on"),
        (GOOD + "[run]\neval_mode = 1", "mine.toml: run: eval_mode = 1: expected a name"),
        (GOOD + "[config]\ntua = 1", r"mine.toml: config.tua: no algorithm here has it; did you mean 'tau'"),
        (GOOD + '[config]\ntau = "x"', "mine.toml: config: qsm: tau = 'x': expected a number"),
        (GOOD + "[config]\ntau = 2", "mine.toml: config: qsm: tau = 2.0: expected a number from 0 to 1"),
        (GOOD + "[algo]\nsac = 3", "mine.toml: algo.sac: expected a table, not 3"),
        (GOOD + "[algo.sax]\ntau = 1", "mine.toml: algo.sax: no algorithm 'sax'"),
        (GOOD + "[algo.sac]\nM_q = 1", "mine.toml: algo.sac: sac has no setting 'M_q'"),
        (GOOD + "[env]\nPendulum-v1 = 3", "mine.toml: env.Pendulum-v1: expected a table, not 3"),
        (GOOD + "[env.Pendulun-v1.qsm]\nT = 3", "mine.toml: env.Pendulun-v1: unknown task"),
        (GOOD + "[env.Pendulum-v1]\nqsm = 3", "mine.toml: env.Pendulum-v1.qsm: expected a table, not 3"),
        (
            GOOD + "[env.Pendulum-v1.qsm]\nT = 0",
            "mine.toml: env.Pendulum-v1.qsm: qsm: T = 0: expected at least 1",
        ),
    ],
)
def test_mistakes_in_a_study_file_are_told_with_file_key_and_reason(
    text: str | bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path, text).jobs()
    assert "\n" not in str(caught.value)


def test_a_study_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no study 'papre'; did you mean 'paper'"):
        load_study("papre")
    with pytest.raises(UserError, match="no study file"):
        load_study(str(tmp_path / "mine.toml"))
    with pytest.raises(UserError, match=re.escape("my study.toml: a study's name may have letters")):
        load(tmp_path, GOOD, "my study.toml")

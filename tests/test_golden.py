"""Our agents against the numbers of the reference implementations (see golden/README.md).

GOLDEN_DIR names another folder of such files: `GOLDEN_DIR=elsewhere pytest tests/test_golden.py`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from algos.core.agent import Agent, Batch
from algos.core.execution import Execution
from algos.core.noise import Draw
from bench.check.golden import networks
from bench.check.golden_comparison import FLOAT32_DIGIT, compare, compare_updates
from tests.golden_maps import reader, reader_class

OURS = Path(__file__).parent / "golden"
GOLDEN = Path(os.environ.get("GOLDEN_DIR", OURS))
FILES = sorted(GOLDEN.glob("*.npz"))
QUICK = ("sac",)
DTYPES = [torch.float32, torch.float64]
Arrays = dict[str, Any]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


def named(path: Path) -> str:
    return path.stem


# -- the references' numbers -------------------------------------------------------------------------------


def test_there_are_files_for_every_algorithm_of_the_references():
    stems = {path.stem for path in OURS.glob("*.npz")}
    assert {"qsm", "dql", "dql_bc", "sac", "td3", "simba_sac", "crossq", "dime", "dime_delay1"} <= stems
    assert FILES, f"no golden files in {GOLDEN}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("path", FILES, ids=named)
def test_updates_and_actions_are_the_reference_s(path, dtype):
    assert compare(reader(path, dtype)) == []


#: Compiled against eager in float64, (networks, target networks), relative to the distance a leaf has moved: fused
#: kernels sum in another order. Seen within 10 updates: 6e-15 and 3e-12. In float32 the references' tolerances hold.
COMPILED_RTOL = (1e-10, 1e-9)


class CompiledPhases:
    """Compiles some of an agent's update functions; runs the others eagerly, to save minutes of compiling."""

    def __init__(self, phases: set[int]):
        self.compiled, self.phases = Execution("compile"), phases

    def __call__(self, key: tuple[str, int], fn: Callable, tensors: tuple, constants: tuple) -> Any:
        return (
            self.compiled(key, fn, tensors, constants) if key[1] in self.phases else fn(*tensors, *constants)
        )


def check_compiled(path: Path, dtype: torch.dtype, phases: Callable[[Agent], set[int]]) -> None:
    golden = reader(path, dtype)
    eager, agent = golden.agent(), golden.agent()
    agent.execution = CompiledPhases(phases(agent))
    initial = agent.state_dict(0)
    assert compare_updates(golden, agent) == []
    agent.load_state_dict([initial])
    for i in range(10):
        golden.update(eager, i)
        golden.update(agent, i)
        if i in (0, 9):
            for part in networks(eager):
                single = dtype == torch.float32
                rtols = (golden.LEAF_RTOL, golden.SLOW_RTOL) if single else COMPILED_RTOL
                rtol = rtols[part.startswith(("target", "ema"))]
                for leaf, p in eager.state[part].items():
                    off, moved = (
                        (agent.state[part][leaf] - p).norm(),
                        (p - initial["state"][part][leaf]).norm(),
                    )
                    floor = FLOAT32_DIGIT * (i + 1) * p.norm() if single else 0.0
                    assert off <= max(rtol * moved, floor), (i + 1, part, leaf, (off / moved).item())
    assert agent.execution.compiled.preparation_s > 0


@pytest.mark.slow
# Of these only: the others compile for a minute and more each, which is for `make test-all`. That compiled updates of
# QSM are the eager ones is seen at small networks too (test_conformance.py).
@pytest.mark.parametrize(
    "path", [OURS / f"{stem}.npz" for stem in QUICK] if GOLDEN == OURS else [], ids=named
)
def test_compiled_updates_are_the_reference_s_and_those_of_eager_ones(path):
    """Of the update functions only that in which everything moves."""
    check_compiled(path, torch.float32, lambda agent: {max(agent.phase(i) for i in range(10))})


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("path", FILES, ids=named)
def test_they_are_so_with_every_phase_compiled(path, dtype):
    check_compiled(path, dtype, lambda agent: {agent.phase(i) for i in range(10)})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("path", FILES, ids=named)
def test_updates_captured_as_graphs_on_a_gpu_are_the_reference_s(path, dtype):
    golden = reader(path, dtype, "cuda")
    assert compare_updates(golden, golden.agent("graph")) == []


# -- files of other dimensions ------------------------------------------------------------------------------


def reference_names(algo: str, layers: int) -> list[str]:
    """The references' names of all parameters of networks with `layers` hidden layers."""
    both = lambda *nets: [net + leaf for net in nets for leaf in ("/kernel", "/bias")]  # noqa: E731
    mlp = lambda prefix, n: both(*(f"{prefix}/Dense_{i}" for i in range(n)))  # noqa: E731
    if algo == "dql_bc":
        modules = {
            "actor": [
                "time_mlp.1",
                "time_mlp.3",
                *(f"mid_layer.{2 * i}" for i in range(layers)),
                "final_layer",
            ],
            "critic": [f"q{k}_model.{2 * i}" for k in (1, 2) for i in range(layers + 1)],
        }
        modules |= {"ema_actor": modules["actor"], "target_critic": modules["critic"]}
        return [f"{n}/{m}.{leaf}" for n, ms in modules.items() for m in ms for leaf in ("weight", "bias")]
    if algo in ("qsm", "dql"):
        critics = [f"{kind}critic_{k}" for kind in ("", "target_") for k in (1, 2)]
        actor = mlp("score_model/MLP_0", 2) + mlp("score_model/MLP_1", layers + 1)
        names = [*actor, "score_model/FourierFeatures_0/kernel"]
    else:
        critics = [f"{kind}critic/VmapStateActionValue_0" for kind in ("", "target_")]
        actors = ["actor", "target_actor"] if algo == "td3" else ["actor"]
        heads = ["OutputDenseMean"] if algo == "td3" else ["OutputDenseMean", "OutputDenseLogStd"]
        names = [
            name for a in actors for name in mlp(f"{a}/MLP_0", layers) + both(*(f"{a}/{h}" for h in heads))
        ]
        names += ["temp/log_temp"] if algo == "sac" else []
    return names + [name for c in critics for name in mlp(f"{c}/MLP_0", layers) + both(f"{c}/Dense_0")]


def write(path: Path, meta: dict[str, Any], after: tuple[int, ...]) -> Path:
    """A file in the references' format with the numbers of our own agent in float32."""
    meta = meta | {"adam": {"b1": 0.9, "b2": 0.999, "eps": 1e-8}}
    golden = reader_class(path).__new__(reader_class(path))
    golden.path, golden.meta, golden.dtype, golden.device = path, meta, torch.float32, "cpu"
    agent = golden.build()
    arrays: Arrays = {"meta": json.dumps(meta)}
    rng = np.random.default_rng(3)

    def dump(moment: str) -> None:
        for name in reference_names(meta["algo"], len(meta["hidden"])):
            value = golden.ours(agent, name).numpy().copy()
            arrays[f"{moment}/{name}"] = value.T if name.endswith(".weight") else value

    def draw(prefix: str, specs: list[Draw]) -> dict[str, Any]:
        draws = agent.noise["update"].fill(specs)
        for j, spec in enumerate(specs):
            arrays[f"{prefix}/draw{j:02d}/{spec.kind}"] = draws[spec.name][0].numpy().copy()
        return draws

    dump("init")
    rows, obs_dim, act_dim = meta["batch"], meta["obs_dim"], meta["act_dim"]
    for i in range(meta["updates"]):
        batch = {
            "observations": rng.normal(size=(rows, obs_dim)),
            "actions": rng.uniform(-1, 1, (rows, act_dim)),
            "rewards": rng.uniform(size=rows),
            "masks": rng.uniform(size=rows) > 0.2,
            "next_observations": rng.normal(size=(rows, obs_dim)),
        }
        batch = {f"update{i}/batch/{name}": value.astype(np.float32) for name, value in batch.items()}
        arrays |= batch
        fields = Batch(*(torch.as_tensor(value)[None] for value in batch.values()))
        draws = draw(f"update{i}", agent.update_draws(fields, agent.phase(i)))
        metrics = agent.update_step(agent.state, fields, draws, agent.phase(i))
        theirs = {"q_loss": "ql_loss", "target_q": "target_q_mean"}
        arrays |= {f"update{i}/info/{theirs.get(k, k)}": v[0].numpy().copy() for k, v in metrics.items()}
        if i + 1 in after:
            dump(f"after{i + 1}")
    obs = arrays["act/observation"] = rng.normal(size=obs_dim).astype(np.float32)
    for kind, mode in (("eval", agent.evaluation_mode), ("explore", "behaviour")):
        selection = agent.selection(mode)
        given = torch.as_tensor(obs)[None, None]
        draws = draw(f"act/{kind}", agent.act_draws(given, mode, selection))
        action = agent.act_step(agent.state, given, draws, mode, selection)
        arrays[f"act/{kind}/action"] = action.flatten().numpy().copy()
    np.savez(path, **arrays)
    return path


COMMON = {"obs_dim": 3, "act_dim": 1, "batch": 4, "hidden": [8], "lr": 1e-3, "discount": 0.9, "tau": 0.02}
BC = {"eta": 3.0, "grad_norm": 0.5, "ema_decay": 0.9, "ema_every": 1, "ema_start": 1, "time_dim": 8}
OTHERS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "qsm, one step": ({"algo": "qsm", "T": 1, "M_q": 10, "updates": 1}, (1,)),
    "qsm, three layers": (
        {"algo": "qsm", "T": 12, "M_q": 120.0, "updates": 5, "hidden": [16, 12, 8], "obs_dim": 17, "act_dim": 6,
         "batch": 16},
        (2, 5),
    ),
    "dql, 120 steps": ({"algo": "dql", "T": 120, "updates": 2, "actor_lr_decay_steps": 2}, (1, 2)),
    "dql_bc": ({"algo": "dql_bc", "T": 3, "updates": 4, "hidden": [8, 8], **BC}, (1, 4)),
    "sac": ({"algo": "sac", "target_entropy": -4.0, "init_temperature": 0.1, "updates": 3, "act_dim": 4}, (1, 3)),
    "td3": (
        {"algo": "td3", "actor_delay": 3, "target_policy_noise": 0.4, "target_policy_noise_clip": 0.1,
         "exploration_noise": 0.3, "updates": 6},
        (1, 3, 6),
    ),
}  # fmt: skip


@pytest.mark.seconds
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", OTHERS)
def test_a_file_of_other_dimensions_and_settings_can_be_checked(case, dtype, tmp_path):
    meta, after = OTHERS[case]
    path = write(tmp_path / f"{meta['algo']}_other.npz", COMMON | meta, after)
    assert compare(reader(path, dtype)) == []


# -- the comparison can fail ---------------------------------------------------------------------------------


def changed(path: Path, tmp_path: Path, change: Callable[[Arrays], None]) -> Path:
    with np.load(path) as arrays:
        copy: Arrays = {key: arrays[key].copy() for key in arrays.files}
    change(copy)
    np.savez(tmp_path / f"{path.stem}_changed.npz", **copy)
    return tmp_path / f"{path.stem}_changed.npz"


def add(key: str, value: float) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays[key] = arrays[key] + np.asarray(value, arrays[key].dtype)

    return change


def copy(source: str, target: str) -> Callable[[Arrays], None]:
    """As if the reference's leaves at `target` had not moved since `source`."""

    def change(arrays: Arrays) -> None:
        keys = [key for key in arrays if key.startswith(target)]
        assert keys
        for key in keys:
            arrays[key] = arrays[source + key.removeprefix(target)]

    return change


def swap(one: str, other: str) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays[one], arrays[other] = arrays[other], arrays[one]

    return change


def remove(key: str) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        del arrays[key]

    return change


CHANGES = [
    ("qsm", add("update0/info/actor_loss_mean", 0.002), "update 1: actor_loss"),
    ("qsm", add("update3/info/c_loss_mean_2", 2e-5), "update 4: critic_loss"),
    ("td3", add("update2/info/actor_loss", 0.1), "update 3: actor_loss = nan"),
    ("qsm", add("after1/critic_1/MLP_0/Dense_0/kernel", 1e-6), "after update 1: critic_1/MLP_0/Dense_0/kernel"),
    ("qsm", add("after4/score_model/FourierFeatures_0/kernel", 3e-6), "score_model/FourierFeatures_0/kernel"),
    ("qsm", copy("init/target_critic_1", "after1/target_critic_1"), "after update 1: target_critic_1"),
    ("sac", copy("init/target_critic", "after4/target_critic"), "after update 4: target_critic"),
    ("sac", add("after1/temp/log_temp", 1e-6), "after update 1: temp/log_temp"),
    ("dql_bc", copy("init/ema_actor", "after4/ema_actor"), "after update 4: ema_actor"),
    ("td3", add("after1/actor/OutputDenseMean/bias", 1e-7), "after update 1: actor/OutputDenseMean/bias"),
    ("td3", copy("init/actor", "after4/actor"), "but the reference did not move it"),
    ("qsm", add("update0/draw06/normal", 0.01), "update 1: critic_loss"),
    ("qsm", swap("update0/draw00/normal", "update0/draw01/normal"), "update 1: critic_loss"),
    ("dql_bc", swap("update2/draw07/normal", "update2/draw08/normal"), "update 3: "),
    ("dql_bc", add("update0/draw14/uniform", 1.0), "update 1: q_loss"),
    ("td3", add("update0/batch/masks", 0.01), "update 1: critic_loss"),
    ("qsm", add("schedule/alpha_hats", 1e-5), "schedule: alpha_hats"),
    ("qsm", add("act/eval/action", 1e-4), "act/eval: the action is off"),
    ("dql", add("act/explore/draw06/normal", 0.01), "act/explore: the action is off"),
    ("sac", add("act/explore/action", -1e-4), "act/explore: the action is off"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "change", "found"), CHANGES)
def test_a_changed_number_is_found(file, change, found, tmp_path):
    problems = compare(reader(changed(OURS / f"{file}.npz", tmp_path, change), torch.float64))
    assert any(found in problem for problem in problems), problems


def meta_with(**values: Any) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays["meta"] = np.array(json.dumps(json.loads(str(arrays["meta"])) | values))

    return change


UNREADABLE = [
    ("sac", meta_with(critic_layer_norm=True), "'critic_layer_norm', which is no setting of sac"),
    ("sac", meta_with(M_q=50), "'M_q', which is no setting of sac"),
    ("sac", meta_with(adam={"b1": 0.5, "b2": 0.999, "eps": 1e-8}), "Adam with"),
    ("qsm", meta_with(updates=5), "do not fit 5 updates"),
    ("qsm", meta_with(updates=3), "do not fit 3 updates"),
    ("qsm", meta_with(hidden=[16, 15]), "ours "),
    ("qsm", meta_with(hidden=[16, 16, 16]), "ours "),
    ("qsm", meta_with(T=6), "draws"),
    ("qsm", meta_with(T=4), "draws"),
    ("td3", remove("init/target_actor/MLP_0/Dense_0/bias"), "parameters at init"),
    ("td3", remove("update1/draw00/normal"), "update1 draws"),
    ("qsm", add("update0/draw07/randint", 5), r"is not in \[0, 5\)"),
]


@pytest.mark.parametrize(("file", "change", "found"), UNREADABLE)
def test_a_file_that_our_agent_does_not_fit_is_refused(file, change, found, tmp_path):
    with pytest.raises(ValueError, match=found):
        compare(reader(changed(OURS / f"{file}.npz", tmp_path, change), torch.float64))


SETTINGS = {
    "qsm": {"M_q": 51, "actor_lr_decay_steps": 10, "lr": 4e-4, "discount": 0.98, "tau": 0.006},
    "dql": {"actor_lr_decay_steps": 10, "lr": 4e-4, "discount": 0.98, "tau": 0.006},
    "dql_bc": {"eta": 1.1, "grad_norm": 0.4, "ema_decay": 0.99, "ema_every": 1, "ema_start": 2, "lr": 4e-4,
               "discount": 0.98, "tau": 0.006},
    "sac": {"target_entropy": -1.1, "init_temperature": 0.9, "lr": 4e-4, "discount": 0.98, "tau": 0.006},
    "td3": {"target_policy_noise": 0.3, "target_policy_noise_clip": 0.1, "actor_delay": 1, "exploration_noise": 0.2,
            "lr": 4e-4, "discount": 0.98, "tau": 0.006},
}  # fmt: skip


@pytest.mark.seconds
@pytest.mark.parametrize("file", SETTINGS)
def test_every_setting_is_read_from_the_file(file, tmp_path):
    """With another value in `meta` the same numbers no longer come out."""
    structure = {"algo", "obs_dim", "act_dim", "batch", "hidden", "T", "time_dim", "updates", "adam"}
    meta = reader(OURS / f"{file}.npz", torch.float64).meta
    assert meta.keys() - structure <= SETTINGS[file].keys()
    for key, value in SETTINGS[file].items():
        if key == "init_temperature":
            continue  # the parameters at init contain it
        path = changed(OURS / f"{file}.npz", tmp_path, meta_with(**{key: value}))
        assert compare(reader(path, torch.float64)), f"{key} = {value} gives the same numbers"

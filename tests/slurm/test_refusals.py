"""What Slurm refuses, in the words of clusters that the development cluster is not like; its commands are stand-ins."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import EAGER, Commands, make_study

from bench.errors import UserError
from bench.launch.slurm import arrays, queue
from bench.launch.slurm import submit as slurm

POLICY = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"


@pytest.fixture
def refused(commands, tmp_path, profile, capsys):
    """What is said where sbatch refuses with `said` after having accepted `accepted` arrays."""

    def run(said: str, accepted: int = 0, **keys: str) -> str:
        for name in ("srun", "scancel", "scontrol"):
            commands.answer(name, "MaxArraySize = 2\n")
        commands.script(
            "sbatch",
            f"[ $(wc -l <{commands.folder}/sbatch.calls) -le {accepted} ] && echo Submitted batch job 7 && exit\n"
            f"cat <<'END' >&2\n{said}\nEND\nexit 1",
        )
        study = make_study("study", seeds=4)
        packs = [[job] for job in study.jobs()]
        with pytest.raises(UserError) as error:
            slurm.submit(tmp_path / "results", study, packs, profile(**keys), execution=EAGER)
        assert "\n" not in str(error.value)
        assert capsys.readouterr() == ("", "")  # nothing besides
        return str(error.value)

    return run


@pytest.mark.parametrize(
    ("said", "keys", "setting"),
    [
        ("Invalid account or account/partition combination specified", {}, "account is not set"),
        ("Invalid account or account/partition combination specified", {"account": '"x"'}, 'account = "x"'),
        ("Invalid qos specification", {"qos": '"x"'}, 'qos = "x"'),
        (f"AssocMaxSubmitJobLimit\nsbatch: error: {POLICY}", {}, "jobs_per_task is not set"),
        (f"QOSMaxWallDurationPerJobLimit\nsbatch: error: {POLICY}", {}, 'time = "00:30:00"'),
        (f"QOSMaxCpuPerUserLimit\nsbatch: error: {POLICY}", {"qos": '"x"'}, 'qos = "x"'),
        ("Invalid Trackable RESource (TRES) specification", {"gpus": "1", "gpu_type": '"x"'}, "gpus = 1"),
        ("Requested time limit is invalid (missing or exceeds some limit)", {}, 'time = "00:30:00"'),
    ],
)
def test_names_the_key(refused, said: str, keys: dict[str, str], setting: str):
    told = refused(f"sbatch: error: Batch job submission failed: {said}", **keys)
    assert told.startswith(f"Slurm refuses: {said.splitlines()[0]}")
    assert f"changed.toml: {setting}" in told


def test_what_went_out_before_a_refusal_is_told_and_kept(refused, commands: Commands, tmp_path: Path):
    told = refused("sbatch: error: Batch job submission failed: Invalid partition name specified", accepted=1)
    assert told.endswith("job 7 was submitted before that; the same command submits the rest")
    (array,), _ = queue.survey(arrays.folder(tmp_path / "results", "study"))
    assert (array.job, len(array.tasks)) == ("7", 2)

"""What Slurm takes, takes in part, or takes without saying so. Its commands are stand-ins."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import EAGER, make_study, state_of_runs

from bench.__main__ import main
from bench.errors import UserError
from bench.launch.slurm import arrays, queue
from bench.launch.slurm import submit as slurm
from bench.launch.slurm.profiles import load_profile

POLICY = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"


@pytest.fixture
def submit(commands, tmp_path, profile) -> Callable[..., slurm.Submission]:
    """Submits eight runs, a task each."""

    def run(sbatch: str, keys: dict[str, str] | None = None, seeds: int = 8, **options) -> slurm.Submission:
        commands.slurm(sbatch=sbatch)
        study = make_study("study", seeds=seeds)
        packs = [[job] for job in study.jobs()]
        options = {"execution": EAGER, **options}
        return slurm.submit(tmp_path / "results", study, packs, profile(**(keys or {})), **options)

    return run


def records(root: Path) -> list[arrays.Array]:
    return arrays.read_arrays(arrays.folder(root / "results", "study"))[0]


@pytest.mark.parametrize(
    ("sbatch", "words"),
    [
        (
            "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1",
            "timed",
        ),
        ("echo 'Welcome to the cluster'", "sbatch printed 'Welcome to the cluster'"),
        ("kill -9 $$", "exit code -9"),
    ],
)
def test_what_slurm_may_have_taken_is_kept_and_found_by_its_name(
    submit, commands, tmp_path, sbatch: str, words: str
):
    with pytest.raises(UserError, match=f"{words}.*Slurm may have taken the job or not"):
        submit(sbatch)
    (array,) = records(tmp_path)
    assert array.job is None
    folder = arrays.folder(tmp_path / "results", "study")
    work = json.loads(arrays.work_file(folder, array.token).read_text())  # and its tasks find their work
    assert len(work["tasks"]) == 8
    commands.answer("squeue", "".join(f"91|{k}|PENDING|None||{array.name}\n" for k in range(8)))
    again = submit("echo 92")
    assert (again.runs, again.queued) == (0, 8)


@pytest.mark.parametrize("printed", ["77", "77;cluster1", "Submitted batch job 77", "motd 12\\n77\\nbye"])
def test_the_id_is_found_in_what_sbatch_prints(submit, tmp_path, printed: str):
    assert submit(f"printf '{printed}\\n'").arrays[0].job == "77"


def test_a_refusal_is_forgotten_with_all_its_files(submit, tmp_path):
    with pytest.raises(UserError, match="Slurm refuses: Invalid partition name"):
        submit(
            "echo 'sbatch: error: Batch job submission failed: Invalid partition name specified' >&2; exit 1"
        )
    left = {path.name for path in arrays.folder(tmp_path / "results", "study").iterdir()}
    assert left <= {".lock", "logs"}


def limited(most: int, words: str = f"AssocMaxSubmitJobLimit\nsbatch: error: {POLICY}") -> str:
    """An sbatch that takes `most` tasks in all, and no array that goes beyond."""
    return (
        'n=$(sed -n "s/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p" "$2"); n=$((${n:-0} + 1))\n'
        'taken=$(cat "$0.taken" 2>/dev/null || echo 0)\n'
        f'if [ $((taken + n)) -le {most} ]; then echo $((taken + n)) >"$0.taken"; echo 7$taken; exit; fi\n'
        f"cat <<'END' >&2\nsbatch: error: Batch job submission failed: {words}\nEND\nexit 1"
    )


@pytest.mark.parametrize("most", [1, 3, 5, 7])
def test_a_limit_below_an_array_s_size_takes_what_it_can_and_says_when_to_come_back(
    submit, tmp_path, most: int
):
    submission = submit(limited(most))
    assert (
        sum(len(array.tasks) for array in submission.arrays)
        == most
        == sum(len(a.tasks) for a in records(tmp_path))
    )
    assert submission.left == 8 - most
    told = "\n".join(submission.lines())
    assert f"submitted {most} of 8 tasks" in told
    assert "AssocMaxSubmitJobLimit" in told
    assert "the same command submits the rest: repeat it when `make status` shows fewer runs queued" in told


def test_the_rest_of_a_grid_goes_out_later_by_the_same_command(submit, commands, tmp_path):
    submit(limited(5))
    waiting = [(a, k) for a in records(tmp_path) for k in range(len(a.tasks))]
    commands.answer("squeue", "".join(f"{a.job}|{k}|PENDING|None||{a.name}\n" for a, k in waiting))
    full = submit(limited(5))  # nothing has ended yet: no error, the same advice
    assert (full.arrays, full.queued, full.left) == ([], 5, 3)
    rest = submit(limited(8))
    assert (rest.queued, rest.runs, rest.left) == (5, 3, 0)


def test_a_full_controller_is_not_blamed_on_the_profile(submit):
    words = "Resource temporarily unavailable"
    with pytest.raises(
        UserError, match=r"takes no more jobs now: .*MaxJobCount\), which no profile changes"
    ) as error:
        submit(limited(0, words))
    assert "changed.toml" not in str(error.value)


def test_the_command_says_by_its_exit_code_that_some_is_left(commands, tmp_path, profile, capsys):
    commands.slurm(sbatch=limited(1))
    profile()
    command = [
        "slurm",
        "--algos",
        "sac",
        "--envs",
        "cheetah-run",
        "--seeds",
        "3",
        "--results",
        str(tmp_path / "r"),
    ]
    assert main([*command, "--profile", str(tmp_path / "changed.toml")]) == 3
    assert "2 tasks left: Slurm refuses: AssocMaxSubmitJobLimit" in capsys.readouterr().out


def test_figures_ask_for_no_gpu_and_wait_for_all(submit, tmp_path):
    keys = {"gpus": "2", "memory": '"64G"', "cpus": "8", "sbatch": '{ gres = "gpu:1", exclude = "n7" }'}
    submission = submit("echo 77", keys, figures=True, execution=EAGER | {"device": "cuda"})
    figures = next(array for array in records(tmp_path) if array.kind == "figures")
    folder = arrays.folder(tmp_path / "results", "study")
    script = arrays.script_file(folder, figures.token).read_text()
    assert "--gres" not in script
    assert {"#SBATCH --mem=4G", "#SBATCH --cpus-per-task=1", "#SBATCH --exclude=n7"} <= set(
        script.splitlines()
    )
    assert f"#SBATCH --dependency=afterany:{submission.arrays[0].job}" in script
    runs = arrays.script_file(folder, submission.arrays[0].token).read_text()
    assert "#SBATCH --gres=gpu:2,gpu:1" in runs


def test_variables_of_sbatch_stand_for_what_the_profile_leaves_open(submit, monkeypatch, tmp_path):
    monkeypatch.setenv("SBATCH_ACCOUNT", "group7")
    monkeypatch.setenv("SBATCH_PARTITION", "debug")  # the profile says "main"
    monkeypatch.setenv("SBATCH_RESERVATION", "course")
    monkeypatch.setenv("SBATCH_TIMELIMIT", "5")
    submission = submit("echo 77")
    script = arrays.script_file(
        arrays.folder(tmp_path / "results", "study"), submission.arrays[0].token
    ).read_text()
    flags = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", script, re.MULTILINE))
    assert [flags[key] for key in ("account", "partition", "reservation", "time")] == [
        "group7",
        "main",
        "course",
        "30",
    ]
    told = "\n".join(submission.lines())
    assert "account = group7, from your environment" in told
    assert "not taken over from your environment: SBATCH_TIMELIMIT" in told
    assert "partition" not in told


# Cancelling


def queued(commands, tmp_path: Path, submit) -> arrays.Array:
    submit("echo 77")
    (array,) = records(tmp_path)
    commands.answer("squeue", "".join(f"77|{k}|RUNNING|None|n1|{array.name}\n" for k in range(8)))
    return array


def test_cancel_works_where_nothing_can_be_written(submit, commands, tmp_path, monkeypatch, capsys):
    queued(commands, tmp_path, submit)

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(arrays, "write_json", full)
    monkeypatch.setattr(slurm, "locked", full)
    assert slurm.cancel(tmp_path / "results", "study") == 8
    assert commands.calls("scancel") == ["77"]
    assert "cancelling without the lock" in capsys.readouterr().err


def test_cancel_goes_on_beside_a_damaged_record(submit, commands, tmp_path, capsys):
    queued(commands, tmp_path, submit)
    (arrays.folder(tmp_path / "results", "study") / "array-00000000.json").write_text("{")
    assert slurm.cancel(tmp_path / "results", "study") == 8
    assert "array-00000000.json is damaged" in capsys.readouterr().err


def test_cancel_that_slurm_refuses_is_no_success(submit, commands, tmp_path):
    queued(commands, tmp_path, submit)
    commands.script(
        "scancel", "echo 'scancel: error: Kill job error on job id 77: Access/permission denied' >&2; exit 1"
    )
    with pytest.raises(UserError, match="permission denied"):
        slurm.cancel(tmp_path / "results", "study")


def test_cancel_of_what_has_just_ended_is_no_error(submit, commands, tmp_path):
    queued(commands, tmp_path, submit)
    words = "Kill job error on job id 77: Job/step already completing or completed"
    commands.script("scancel", f"echo 'scancel: error: {words}' >&2; exit 1")
    assert slurm.cancel(tmp_path / "results", "study") == 8


# A group's folder


def test_a_colleague_s_queued_tasks_count(submit, commands, tmp_path):
    """squeue is asked by the arrays' names, so that it does not matter who submitted them."""
    submit("echo 77")
    (array,) = records(tmp_path)
    commands.script("squeue", f'case "$*" in *--user*) ;; *--name={array.name}*) cat {tmp_path}/queue;; esac')
    (tmp_path / "queue").write_text("".join(f"77|{k}|PENDING|None||{array.name}\n" for k in range(8)))
    again = submit("echo 78")
    assert (again.runs, again.queued) == (0, 8)


def test_any_active_array_counts_not_the_newest_alone(submit, commands, tmp_path):
    submit("echo 77")
    commands.answer("squeue", "")
    submit("echo 78")
    first, second = records(tmp_path)
    lines = [f"77|{k}|RUNNING|None|n1|{first.name}\n78|{k}|CANCELLED|None||{second.name}\n" for k in range(8)]
    commands.answer("squeue", "".join(lines))
    again = submit("echo 79")
    assert (again.runs, again.queued) == (0, 8)
    states = {entry.state for entry in state_of_runs(tmp_path / "results", "study").values()}
    assert states == {"RUNNING"}


def test_names_that_squeue_would_part_are_not_given_to_it(commands, tmp_path):
    array = arrays.new_array(tmp_path / "a,b" / "slurm", "runs", [["a,b/e/x/seed-0"]])
    commands.answer("squeue", f"5|N/A|PENDING|None||{array.name}\n")
    assert queue.ask_slurm([array]).known
    assert "--name" not in commands.calls("squeue")[0]


# Resources per algorithm, containers


def mixed(folder: Path) -> str:
    file = folder / "mixed.toml"
    file.write_text(
        'time = "01:00:00"\npartition = "cpu"\nmemory = "3G"\n[algo.sac]\nmemory = "1G"\ntime = "00:30:00"\n'
        '[algo.qsm]\npartition = "gpu"\ngpus = 1\n[figures]\npartition = "short"\n'
    )
    return str(file)


def test_each_algorithm_asks_for_its_own(commands, tmp_path, capsys):
    commands.slurm(sbatch='grep -c . "$0.calls"')
    command = ["slurm", "--algos", "sac td3 qsm", "--envs", "cheetah-run walker-walk", "--seeds", "2"]
    command += ["--results", str(tmp_path / "r"), "--profile", mixed(tmp_path), "--figures", "1"]
    assert main(command) == 0
    (study,) = [path.name for path in (tmp_path / "r").iterdir()]
    folder = arrays.folder(tmp_path / "r", study)
    asked = {}
    for array in arrays.read_arrays(folder)[0]:
        script = arrays.script_file(folder, array.token).read_text()
        flags = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", script, re.MULTILINE))
        work = json.loads(arrays.work_file(folder, array.token).read_text())
        device = work["options"]["device"] if array.kind == "runs" else ""
        algos = {path.split("/")[2] for task in array.tasks for path in task if array.kind == "runs"}
        key = ",".join(sorted(algos)) or array.kind
        asked[key] = [flags.get(k) for k in ("partition", "mem", "time", "gres")] + [device, len(array.tasks)]
    assert asked == {
        "sac": ["cpu", "1G", "30", None, "cpu", 4],
        "td3": ["cpu", "3G", "60", None, "cpu", 4],
        "qsm": ["gpu", "3G", "60", "gpu:1", "cuda", 2],  # a pack of two seeds for each task
        "figures": ["short", "3G", "60", None, "", 1],
    }


def test_an_algorithm_that_there_is_not_is_said(commands, tmp_path, capsys):
    commands.slurm()
    file = tmp_path / "p.toml"
    file.write_text('time = "01:00:00"\n[algo.sca]\nmemory = "1G"\n')
    command = [
        "slurm",
        "--algos",
        "sac",
        "--profile",
        str(file),
        "--results",
        str(tmp_path / "r"),
        "--dry",
        "1",
    ]
    assert main(command) == 2
    assert "did you mean 'sac'" in capsys.readouterr().err


def test_a_container_starts_python(submit, tmp_path):
    submission = submit(
        "echo 77", {"python": '"apptainer exec suite.sif python"', "srun": '["--container-image=x y"]'}
    )
    folder = arrays.folder(tmp_path / "results", "study")
    token = submission.arrays[0].token
    script = arrays.script_file(folder, token).read_text()
    work = arrays.work_file(folder, token)
    assert (
        f"'--container-image=x y' apptainer exec suite.sif python -u -m bench.launch.slurm.start {work}\n"
        in script
    )
    assert script.splitlines()[-1] == "exit $code"


@pytest.mark.parametrize("failures", [0, 2])
def test_the_batch_script_asks_until_it_is_requeued(submit, commands, tmp_path, failures: int):
    """The controller may be away; and the container in which the task ran may have no scontrol."""
    submission = submit(
        "echo 77", {"setup": '["sleep() { :; }"]', "python": '"python-of-the-container"'}, seeds=1
    )
    commands.script("srun", "exit 75")
    commands.script("scontrol", f"[ $(wc -l <{commands.folder}/scontrol.calls) -gt $((1 + {failures})) ]")
    script = arrays.script_file(arrays.folder(tmp_path / "results", "study"), submission.arrays[0].token)
    os.environ["SLURM_JOB_ID"] = "77"
    try:
        assert os.waitstatus_to_exitcode(os.system(f"bash {script} >{tmp_path}/out 2>&1")) == 75
    finally:
        del os.environ["SLURM_JOB_ID"]
    assert commands.calls("scontrol")[1:] == ["requeue 77"] * (1 + failures)
    assert (tmp_path / "out").read_text().count("the request to go back into the queue failed") == failures


def test_a_node_without_scontrol_is_named(submit, commands, tmp_path, monkeypatch):
    submission = submit("echo 77", seeds=1)
    script = arrays.script_file(arrays.folder(tmp_path / "results", "study"), submission.arrays[0].token)
    commands.script("srun", "exit 75")
    (commands.folder / "scontrol").unlink()
    path = f"{commands.folder}:{tmp_path}/tools"
    (tmp_path / "tools").mkdir()
    for tool in ("bash", "hostname", "date", "sleep", "env", "sh", "cat"):
        source = next(Path(p) / tool for p in ("/usr/bin", "/bin") if (Path(p) / tool).exists())
        (tmp_path / "tools" / tool).symlink_to(source)
    code = os.waitstatus_to_exitcode(os.system(f"PATH={path} bash {script} >{tmp_path}/out 2>&1"))
    assert code == 75
    assert "no scontrol on" in (tmp_path / "out").read_text()


def test_a_profile_s_own_table_is_named_in_a_refusal(tmp_path):
    own = load_profile(mixed(tmp_path)).for_algo("sac")
    assert own.setting("memory").endswith('mixed.toml: [algo.sac] memory = "1G"')
    assert own.setting("partition").endswith('mixed.toml: partition = "cpu"')

"""Cluster profiles: what a file may say, and what is said about a file that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import UserError
from bench.launch.slurm.profile_keys import KEYS
from bench.launch.slurm.profiles import FOLDER, Profile, load_profile

READ = ("parsable", "wait", "test-only", "clusters", "quiet", "job_name")


def profile(folder: Path, text: str, name: str = "mine") -> Profile:
    (folder / f"{name}.toml").write_text(text)
    return load_profile(name, folder)


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.toml")), ids=lambda file: file.stem)
def test_committed_profiles_load(file: Path):
    assert load_profile(file.stem).file == file
    assert load_profile(str(file)).name == file.stem


def test_the_examples_show_every_key():
    shown = "".join(path.read_text() for path in FOLDER.glob("example-*.toml"))
    assert [key for key in KEYS if f"\n{key} =" not in shown and f"# {key} =" not in shown] == ["sbatch"]
    assert "[sbatch]" in shown


def test_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    read = profile(
        tmp_path,
        'time = "1-02:03:04"\nmemory = "4G"\ngpus = 2\nsetup = ["module load x", "a=1"]\n'
        'checkpoints = "$SCRATCH/bench"\n[sbatch]\nexclude = "n[1-3]"\nno-kill = true\n',
    )
    assert read.time_min == 26 * 60 + 4  # 26 h 3 min 4 s, rounded up
    assert read.checkpoints == Path("/scratch/me/bench")
    assert (read.memory, read.gpus, read.setup) == ("4G", 2, ("module load x", "a=1"))
    assert read.sbatch == {"exclude": "n[1-3]", "no-kill": True}
    assert (read.partition, read.cpus, read.jobs_per_task) == (None, 1, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('time = "00:30:00"\npartiton = "gpu"', ["'partiton' is an unknown key", "did you mean 'partition'"]),
        ('partition = "gpu"', ["time is missing"]),
        ("time = 30", ["'time' must be", "hours:minutes:seconds", ", not 30"]),
        ('time = "30"', ["'time' must be", "hours:minutes:seconds", ", not '30'"]),
        ('time = "00:00:30"', ["at least one minute"]),
        ('time = "01:00:00"\ncpus = 0', ["'cpus' must be a whole number from 1 on, not 0"]),
        ('time = "01:00:00"\ncpus = true', ["'cpus' must be a whole number from 1 on, not True"]),
        ('time = "01:00:00"\ngpus = "2"', ["'gpus' must be a whole number from 0 on, not '2'"]),
        ('time = "01:00:00"\nmemory = "4 GB"', ["memory", '"900M" or "4G"']),
        ('time = "01:00:00"\npartition = ""', ["partition", "not empty"]),
        ('time = "01:00:00"\npartition = "a\\nb"', ["partition", "one line"]),
        ('time = "01:00:00"\nsetup = "module load x"', ["setup", "list of shell lines"]),
        ('time = "01:00:00"\ncheckpoints = "scratch"', ["checkpoints", "absolute path"]),
        ('time = "01:00:00"\ncheckpoints = "$NOT_SET_ANYWHERE/x"', ["$NOT_SET_ANYWHERE is not set"]),
        ('time = "00:01:00"\nsignal_delay = 30', ["signal_delay = 30", "at most 15 s", '"00:01:00"']),
        ('time = "01:00:00"\n[sbatch]\narray = "0-3"', ["sbatch", "'array', which is set by the suite"]),
        ('time = "01:00:00"\n[sbatch]\nexclude = [1]', ["sbatch", "'exclude'"]),
        ('time = "01:00:00', ["not valid TOML"]),
        # options that would change what the suite reads of sbatch, and those that have a key of their own
        *(
            (f'time = "01:00:00"\n[sbatch]\n{key} = true', [f"'{key}', which is set by the suite"])
            for key in READ
        ),
        ('time = "01:00:00"\n[sbatch]\nmem = "4G"', ["'mem', which has a key of its own", "memory = ..."]),
        (
            'time = "01:00:00"\n[sbatch]\ncpus_per_task = 4',
            ["'cpus_per_task', which has a key of its own", "cpus = ..."],
        ),
        ('time = "01:00:00"\nmem = "4G"', ["'mem' is an unknown key", "did you mean 'memory'"]),
        (
            'time = "01:00:00"\nntasks = 4',
            ["'ntasks' is an unknown key", "the suite sets it itself", "`cpus`"],
        ),
        ('time = "01:00:00"\nexclusive_topology = true', ["below [sbatch]: exclusive-topology"]),
        ('time = "01:00:00"\n[algo.sac]\nmemry = "1G"', ["'algo.sac.memry' is an unknown key", "'memory'"]),
        ('time = "01:00:00"\nalgo = "sac"', ["algo", "must be a table"]),
        ('time = "01:00:00"\n[algo]\nsac = 3', ["algo.sac", "must be a table"]),
        (
            'time = "01:00:00"\nsignal_delay = 600\n[algo.sac]\ntime = "00:05:00"',
            ["signal_delay = 600", "at most 255"],
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, said: list[str]):
    with pytest.raises(UserError) as error:
        profile(tmp_path, text)
    message = str(error.value)
    assert "mine.toml" in message
    assert "\n" not in message
    for part in said:
        assert part in message


def test_an_empty_table_for_the_figures_changes_nothing(tmp_path: Path):
    read = profile(tmp_path, 'time = "01:00:00"\nmemory = "32G"\n[figures]\n')
    assert read.figures is None
    assert read.for_figures().memory == "4G"


def test_unknown_profile_suggests(tmp_path: Path):
    profile(tmp_path, 'time = "01:00:00"', name="cluster-gpu")
    with pytest.raises(UserError, match=r"no cluster profile 'cluster-gp'.*did you mean 'cluster-gpu'"):
        load_profile("cluster-gp", tmp_path)


def test_setting_shows_the_line_of_the_file(tmp_path: Path):
    read = profile(tmp_path, 'time = "01:00:00"\npartition = "nope"')
    assert read.setting("partition").endswith('mine.toml: partition = "nope"')
    assert read.setting("account").endswith("mine.toml: account is not set")

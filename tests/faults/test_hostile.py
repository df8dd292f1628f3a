"""A results folder from somebody who means harm: nothing in it is executed, and nothing it names leaves the folder."""

from __future__ import annotations

import csv
import hashlib
import html.parser
import io
import json
import os
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.__main__ import main
from bench.runs import read_run, read_study
from bench.runs.reader import DONE, seal
from bench.studies.job import Job
from tests.faults.harness import no_traceback, note
from tests.launching import spec, stub_study
from tests.synthetic import make_study

pytestmark = pytest.mark.usefixtures("stubs")

#: What an HTML page, LaTeX, a spreadsheet, a shell, a terminal, a template or Markdown would act on.
EVIL = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>\"'><b>",
    "\\input{/etc/passwd}\\immediate\\write18{id}$x_1^{2}$ %#&~{}",
    '=HYPERLINK("http://example.com","x")',
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "$(touch pwned); `touch pwned` | touch pwned & \n touch pwned",
    "\x1b]0;pwned\x07\x1b[2J\x1b[31m",
    "{{ 7 * 7 }}{% for x in [] %}",
    "[click](javascript:alert(1)) ![x](http://example.com/x.png) | a | b |",
    "../../../etc/passwd",
    "‮gpj.exe\u2028\u200b\ufeff",
)
TEXT = " ".join(EVIL)


def reseal(run: Path, **changes: Any) -> None:
    """As whoever made the folder would: consistent to the last byte."""
    done = json.loads((run / DONE).read_text()) | changes
    done["files"] = {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in done["files"]}
    (run / DONE).write_text(json.dumps(done | {"sha256": seal(done)}))


def change_meta(run: Path, change: dict[str, Any]) -> None:
    meta = json.loads((run / "run.json").read_text()) | change
    (run / "run.json").write_text(json.dumps(meta))
    reseal(run)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Every text that the format leaves free says something that somebody might act on."""
    root = tmp_path / "results"
    make_study(
        root,
        "s",
        ["walker-run", "Pendulum-v1"],
        ["sac", "td3"],
        [0, 1, 2],
        3,
        np.random.default_rng(0),
        origin={},
    )
    record = json.loads((root / "s" / "study.json").read_text())
    record["title"] = TEXT
    record["settings"] |= {"eval_mode": EVIL[0], "note": EVIL[1], "formula": EVIL[2]}
    (root / "s" / "study.json").write_text(json.dumps(record))
    for i, run in enumerate(sorted((root / "s").glob("*/*/seed-*"))):
        meta = json.loads((run / "run.json").read_text())
        evil = EVIL[i % len(EVIL)]
        meta["settings"] = record["settings"]
        meta["config"] = {evil: evil, "hidden": [evil, evil], "nested": {evil: [evil]}, "number": 1e308}
        attempt = meta["attempts"][0]
        attempt["started"] = evil
        attempt["execution"] |= {"device": evil, evil: evil}
        attempt["provenance"] = {
            "git": {"commit": evil, "dirty": evil},
            "code_digest": evil,
            "versions": {evil: evil, "torch": evil},
            "hardware": {"cpu": evil, "cores": evil, "gpus": [evil]},
            "os": evil,
        }
        (run / "run.json").write_text(json.dumps(meta))
        reseal(run, reason=evil)
    diverged = root / "s" / "walker-run" / "sac" / "seed-0"
    reseal(diverged, outcome="diverged", reason=TEXT[:250], env_step=2000)
    failed = root / "s" / "walker-run" / "td3" / "seed-0"
    (failed / DONE).unlink()
    (failed / "failure.json").write_text(
        json.dumps({"format": 1, "attempt": 1, "time": TEXT, "reason": TEXT, "traceback": TEXT})
    )
    owned = root / "s" / "walker-run" / "td3" / "seed-1"
    (owned / DONE).unlink()
    owner = {
        "token": TEXT,
        "attempt": 1,
        "host": TEXT,
        "boot_id": TEXT,
        "pid": -1,
        "scheduler": {"job_id": TEXT},
    }
    (owned / "owner.json").write_text(json.dumps(owner))
    (owned / "heartbeat.json").write_text(json.dumps({"env_step": 1, "rate": 1e300, TEXT: 1}))
    (root / "external").mkdir()
    (root / "external" / "evil.csv").write_text(
        f'env,algo,seed,env_step,return\nwalker-run,"{EVIL[2]}",0,1,1\n'
    )
    (root / "timing" / "x").mkdir(parents=True)
    (root / "timing" / "x" / "provenance.json").write_text(
        json.dumps({"hardware": EVIL[0], "versions": TEXT})
    )
    return root


class Page(html.parser.HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


@pytest.mark.seconds
def test_nothing_in_a_report_acts(
    hostile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = ""
    for command in ("status", "figures"):
        assert main([command, "--results", "results", "--study", "s"]) == 0
        out, err = capsys.readouterr()
        no_traceback(out + err)
        shown += out + err
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\x9b\u202e\u2028]", shown)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]

    report = hostile / "s" / "report"
    page = Page()
    text = (report / "index.html").read_text()
    page.feed(text)
    assert page.tags.count("script") == 3 + len(re.findall('<script type="application/json"', text))
    assert page.tags.count("style") == 2  # ours, and that of the charts
    assert not {"iframe", "object", "embed", "form action", "base", "b onclick"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    links = [value for name, value in page.attributes if name in ("href", "src")]
    assert not [x for x in links if re.match(r"\s*(https?:|javascript:|//|/)", x)]
    assert "49" not in re.findall(r"<h1>(.*?)</h1>", text, re.S)[0]
    assert "&lt;script&gt;" in text

    for path in (report / "tables").glob("*.csv"):
        for row in csv.reader(io.StringIO(path.read_text())):
            for cell in row:
                assert cell.lstrip()[:1] not in ("=", "@", "+") or _is_number(cell), (path.name, cell)
                assert not cell.startswith("-") or _is_number(cell)
                assert not re.search(r"[\x00-\x08\x0b-\x1f]", cell)
    for path in (report / "tables").glob("*.tex"):
        assert not re.search(
            r"\\(input|include|write|immediate|openin|read|def|catcode|csname)\b", path.read_text()
        )
        assert path.read_text().isascii()
    for path in report.rglob("*.md"):
        assert not re.search(r"(?<!\\)<(script|img|b)\b", path.read_text())
        acting = r"(?<!\\)\]\((javascript:|http://example)"  # \[ and \] make no link
        assert not re.search(acting, path.read_text())
        assert not re.search(r"[\x00-\x08\x0b-\x1f]", path.read_text())
    note("hostile texts in every field", files=len(list(report.rglob("*"))), acted=0)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


ODD = [None, True, 0, -1, 1e300, "", "x", [], [[]], {}, {"a": {"b": []}}, [1, "a", None], "nan", 2**62]


@pytest.mark.seconds
@pytest.mark.parametrize("key", ["git", "code_digest", "versions", "hardware", "os", "threads", "scheduler"])
def test_records_of_any_shape_are_shown_or_left_out(tmp_path: Path, key: str) -> None:
    """A sealed record whose values have other types than ours: no command ends in a traceback."""
    from bench.analysis import style
    from bench.analysis.report import sections
    from bench.analysis.scores.load import load

    root = tmp_path / "results"
    make_study(root, "s", ["walker-run"], ["sac"], range(len(ODD)), 2, np.random.default_rng(0), origin={})
    for value, run in zip(ODD, sorted((root / "s" / "walker-run" / "sac").iterdir()), strict=True):
        meta = json.loads((run / "run.json").read_text())
        meta["attempts"][0]["provenance"] = {key: value}
        meta["attempts"][0]["execution"] = {"mode": value, "pack": value, key: value}
        meta["config"] = {"hidden": value, "T": value, "M_q": value}
        change_meta(run, meta)
    with style.drawing():
        assert sections.sections(load(root, "s"))


@pytest.mark.seconds
@pytest.mark.parametrize(
    "key", ["steps", "eval_every", "eval_episodes", "eval_mode", "replay_size", "action_repeat"]
)
@pytest.mark.parametrize("value", [0, -1, "x", 1e18, True, "<script>"])
def test_settings_of_any_shape_are_shown_or_left_out(
    tmp_path: Path, key: str, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench.analysis import style
    from bench.analysis.report import sections
    from bench.analysis.scores.load import load
    from bench.launch.rates import measured_rates

    root = tmp_path / "results"
    (made,) = make_study(root, "s", ["walker-run"], ["sac"], [0], 2, np.random.default_rng(0), origin={})
    record = json.loads((root / "s" / "study.json").read_text())
    record["settings"][key] = value
    (root / "s" / "study.json").write_text(json.dumps(record))
    change_meta(root / made.path, {"settings": record["settings"]})
    with style.drawing():
        assert sections.sections(load(root, "s"))
    (job,) = stub_study().jobs()
    measured_rates(root)(job, "cpu")
    assert main(["status", "--results", str(root)]) == 0
    no_traceback("".join(capsys.readouterr()))


# -- names -------------------------------------------------------------------------------------------

NAMES = [
    "..",
    "../../outside",
    "/etc",
    "a/../../b",
    "~",
    "-rf",
    ".hidden",
    "a b",
    "a\nb",
    "",
    "x" * 300,
    "$(id)",
    *EVIL,
]


@pytest.mark.parametrize("key", ["env", "algo", "label", "study"])
@pytest.mark.parametrize("name", NAMES)
def test_names_cannot_leave_the_results_folder(
    tmp_path: Path, key: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "results"
    (job,) = make_study(root, "s", ["walker-run"], ["sac"], [0], 2, np.random.default_rng(0), origin={})
    change_meta(root / job.path, {key: name})
    run = read_run(root / job.path)
    assert run.state == "damaged", run
    assert run.reason.isprintable()
    if key != "study":
        record = json.loads((root / "s" / "study.json").read_text())
        record["grid"][0][key] = name
        (root / "s" / "study.json").write_text(json.dumps(record))
        for command in ("status", "figures"):
            assert main([command, "--results", str(root), "--study", "s"]) == 2
            err = capsys.readouterr().err
            assert err.count("\n") == 1
            assert err[:-1].isprintable()
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of somebody's own, next to the results."""
    folder = tmp_path / "outside"
    (folder / "report").mkdir(parents=True)
    for name in ("thesis.tex", "eval.csv", "report/index.html", "a.tmp", "replay-0-9.npy", "study.json"):
        (folder / name).write_text("mine")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "link", ["s", "s/stubs_Toy-v0", "s/stubs_Toy-v0/stub", "s/stubs_Toy-v0/stub/seed-0", "s/logs", "s/report",
             "s/stubs_Toy-v0/stub/seed-0/checkpoint"]
)  # fmt: skip
def test_links_out_of_the_results_folder_are_not_followed(
    tmp_path: Path,
    outside: Path,
    link: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever is asked for, not a byte outside is read as ours, written or removed."""
    monkeypatch.chdir(tmp_path)
    settings = "steps = 120\nrandom_steps = 20\neval_every = 40\neval_episodes = 1\nreplay_size = 1000\n"
    (tmp_path / "s.toml").write_text(
        f'algos = ["stub"]\nenvs = ["stubs/Toy-v0"]\nseeds = 1\n[run]\n{settings}final_episodes = 0\n'
    )
    monkeypatch.setenv("BENCH_TEST_CHECKPOINT_S", "0.01")
    before = tree(outside)
    path = tmp_path / "results" / link
    path.parent.mkdir(parents=True)
    path.symlink_to(outside)
    for command in (["run", "--study", "s.toml", "--jobs", "1"], ["figures", "--study", "s"], ["status"]):
        code = main(command)
        out, err = capsys.readouterr()
        no_traceback(out + err)
        assert code in (0, 1, 2)
    assert tree(outside) == before


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_log_that_is_none_is_not_written(tmp_path: Path, kind: str) -> None:
    """Neither through a link to somebody's file nor into a pipe, which would block the launcher for ever."""
    from bench.launch.local.pool import LocalOptions, Pool
    from bench.launch.plan import make_plan

    root = tmp_path / "results"
    (tmp_path / "profile").write_text("mine\n")
    (job,) = jobs = stub_study().jobs()
    log = root / "s" / "logs" / "stubs_Toy-v0-stub-seed-0.log"
    log.parent.mkdir(parents=True)
    if kind == "link":
        log.symlink_to(tmp_path / "profile")
    elif kind == "pipe":
        os.mkfifo(log)
    else:
        log.mkdir()
    outcome = Pool(root, make_plan(root, jobs), LocalOptions(1), lambda p: None).run()
    ((failed, reason),) = outcome.failed
    assert failed == job
    assert str(log) in reason or "leads out of" in reason
    assert (tmp_path / "profile").read_text() == "mine\n"


# -- nothing is executed -----------------------------------------------------------------------------


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def bombs(marker: Path) -> dict[str, bytes]:
    """Files that make `marker` when something loads them without care."""
    import torch

    saved, array = io.BytesIO(), io.BytesIO()
    torch.save({"state": Bomb(marker)}, saved)
    np.save(array, np.array([Bomb(marker)], object), allow_pickle=True)
    return {"pickle": pickle.dumps(Bomb(marker)), "torch": saved.getvalue(), "numpy": array.getvalue()}


@pytest.mark.parametrize("kind", ["pickle", "torch", "numpy"])
def test_a_bomb_goes_off_where_it_is_loaded_without_care(tmp_path: Path, kind: str) -> None:
    """Else the tests below would show nothing."""
    import torch

    data = bombs(tmp_path / "marker")[kind]
    if kind == "pickle":
        pickle.loads(data)
    elif kind == "torch":
        torch.load(io.BytesIO(data), weights_only=False)
    else:
        np.load(io.BytesIO(data), allow_pickle=True)
    assert (tmp_path / "marker").exists()


@pytest.mark.seconds
@pytest.mark.parametrize("kind", ["pickle", "torch", "numpy"])
@pytest.mark.parametrize("name", ["policy.pt", "state-*.pt", "replay-*.npy", "checkpoint.json", "eval.csv"])
def test_nothing_of_a_results_folder_is_unpickled(
    tmp_path: Path, name: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every file that holds binary data, with the SHA-256 to match: read, drawn, resumed."""
    from bench.launch import pack as worker

    root, marker = tmp_path / "results", tmp_path / "marker"
    (job,) = pack = stub_study(algo="stub", steps=400, eval_every=100).jobs()
    _register(root, pack)
    count = iter(range(10**9))
    running = name not in ("policy.pt",)
    worker.run(spec(root, pack), lambda: "stop" if running and next(count) >= 250 else None)
    run = root / job.path
    folder = run if name in ("policy.pt", "eval.csv") else run / "checkpoint"
    (path,) = folder.glob(name)
    path.write_bytes(bombs(marker)[kind])
    if (run / DONE).exists():
        reseal(run)
        assert read_run(run).verified
    manifest = run / "checkpoint" / "checkpoint.json"
    if manifest.exists() and name in ("state-*.pt", "replay-*.npy"):
        record = json.loads(manifest.read_text())
        record["sha256"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        manifest.write_text(json.dumps(record))
    said: list[str] = []
    outcome = worker.run(spec(root, pack), say=said.append)
    if name == "state-*.pt":
        assert outcome == "done"
        assert "other things than tensors" in read_run(run).meta["attempts"][-1]["restarted"]
    else:
        assert outcome in ("done", "failed")
    for command in ("status", "figures"):
        main([command, "--results", str(root), "--study", "s"])
        no_traceback("".join(capsys.readouterr()))
    read_study(root, "s")
    if name == "policy.pt":
        assert main(["video", str(run)]) == 2
        assert "holds objects other than tensors and numbers, so it is not loaded" in capsys.readouterr().err
    assert not marker.exists()


def _register(root: Path, jobs: list[Job]) -> None:
    from bench.runs import FORMAT, write_study

    grid = [{"env": j.env, "algo": j.algo, "label": j.label, "seed": j.seed, "hash": j.hash} for j in jobs]
    settings = jobs[0].identity()["settings"]
    write_study(root, {"format": FORMAT, "study": "s", "title": "s", "settings": settings, "grid": grid})


@pytest.mark.seconds
def test_a_policy_is_loaded_as_numbers_alone(tmp_path: Path) -> None:
    import torch

    from bench.launch import pack as worker

    (job,) = pack = stub_study(algo="td3", hidden=(8, 8), batch_size=8).jobs()
    worker.run(spec(tmp_path, pack))
    assert torch.load(tmp_path / job.path / "policy.pt", weights_only=True)
    shutil.rmtree(tmp_path / job.path)


def test_a_queue_record_of_somebody_elses_names_nothing_outside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Records of Slurm arrays lie in the results folder too; what they name goes to Slurm's commands."""
    root = tmp_path / "results"
    make_study(root, "s", ["walker-run"], ["sac"], [0], 2, np.random.default_rng(0), origin={})
    folder = root / "s" / "slurm"
    folder.mkdir()
    sound = {"format": 1, "token": "0a1b2c3d", "kind": "runs", "name": "s.0a1b2c3d", "tasks": [["a"]],
             "submitted": 1.0, "job": None, "cancelled": False}  # fmt: skip
    bad: list[dict[str, Any]] = [
        {"token": "../../x"}, {"name": "--all"}, {"tasks": [1]}, {"tasks": [[1]]}, {"tasks": "ab"}, {"job": "--user=x"},
        {"job": 7}, {"submitted": None}, {"kind": []}, {"cancelled": "no"}, {"job": "1;id"}, {"extra": 1},
    ]  # fmt: skip
    for change in bad:
        (folder / "array-0a1b2c3d.json").write_text(json.dumps(sound | change))
        code = main(["status", "--results", str(root)])
        out, err = capsys.readouterr()
        no_traceback(out + err)
        assert code in (0, 2), (change, err)
        assert (out + err).count("array-0a1b2c3d.json is damaged") == 1, change
    (folder / "array-0a1b2c3d.json").write_text(json.dumps(sound))
    assert main(["status", "--results", str(root)]) == 0

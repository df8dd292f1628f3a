"""Files of a user as editors and spreadsheets of other systems save them: what is meant is read, or refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.errors import UserError
from bench.launch.slurm.profiles import load_profile
from bench.studies.file import load_study
from tests.launching import REPO

STUDY = 'title = "µ"\nalgos = ["sac"]\nenvs = ["Pendulum-v1"]\nseeds = 2\n[run]\nsteps = 5000\n'
PROFILE = 'time = "01:00:00"\nsetup = ["echo é"]\n[sbatch]\nexclude = "n7"\n'
PER_SEED = "env,algo,seed,env_step,return\nPendulum-v1,é,0,1000,-10.0\nPendulum-v1,é,1,1000,-20\n".replace(
    "é", "sac"
)
SUMMARY = (
    "env,algo,source,step,mean,std,min,median,max,n\n"
    "Pendulum-v1,sac,paper,1000,-340.5,,,,,unstated\nPendulum-v1,sac,other,1000,-300.0,1.0,-350,-299,-250,5\n"
)


def imported(file: Path) -> object:
    """What the command takes of a CSV: its cells. UserError with what is printed where it takes none."""
    from bench.analysis.external.scores import load_external

    root = file.parent / "results"
    if main(["import", str(file), "--results", str(root)]):
        raise UserError("refused")
    frame, problems = load_external(root)
    assert problems == []
    return frame.drop(columns="source").to_csv()


FILES: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "a study": ("s.toml", STUDY, lambda file: load_study(str(file))),
    "a profile": (
        "p.toml",
        PROFILE,
        lambda file: (load_profile(str(file)).setup, load_profile(str(file)).sbatch),
    ),
    "scores per seed": ("mine.csv", PER_SEED, imported),
    "scores in summary": ("mine.csv", SUMMARY, imported),
}

#: Of no meaning.
TAKEN: dict[str, Callable[[str], bytes]] = {
    "a byte order mark": lambda text: text.encode("utf-8-sig"),
    "Windows' ends of lines": lambda text: text.replace("\n", "\r\n").encode(),
    "no end of the last line": lambda text: text.rstrip("\n").encode(),
    "empty lines at the end": lambda text: (text + "\n\n  \n").encode(),
    "blanks before the ends of lines": lambda text: text.replace("\n", "  \n").encode(),
    "all of that": lambda text: (text.replace("\n", " \r\n") + "\r\n\r\n").encode("utf-8-sig"),
}

REFUSED: dict[str, Callable[[str], bytes]] = {
    "UTF-16": lambda text: text.encode("utf-16"),
    "a zero byte": lambda text: text.encode().replace(b"Pendulum", b"Pend\0lum").replace(b"n7", b"n\0"),
    "typographic quotes, or semicolons": lambda text: text.replace('"', "”").replace(",", ";").encode(),
    "nothing": lambda text: b"",
}


@pytest.mark.parametrize("saved", TAKEN)
@pytest.mark.parametrize("kind", FILES)
def test_how_a_file_was_saved_changes_nothing(tmp_path: Path, kind: str, saved: str) -> None:
    name, text, read = FILES[kind]
    (tmp_path / "plain").mkdir()
    (tmp_path / "saved").mkdir()
    (tmp_path / "plain" / name).write_text(text, encoding="utf-8")
    (tmp_path / "saved" / name).write_bytes(TAKEN[saved](text))
    assert read(tmp_path / "saved" / name) == read(tmp_path / "plain" / name)


@pytest.mark.parametrize("saved", REFUSED)
@pytest.mark.parametrize("kind", FILES)
def test_what_cannot_be_read_is_named_in_one_line(
    tmp_path: Path, kind: str, saved: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, text, read = FILES[kind]
    if kind == "scores per seed" and "semicolons" in saved:
        pytest.skip("semicolons separate columns in what others publish, and are read")
    (tmp_path / name).write_bytes(REFUSED[saved](text))
    with pytest.raises(UserError) as refused:
        read(tmp_path / name)
    said = str(refused.value) if name.endswith(".toml") else capsys.readouterr().err
    assert name in said
    assert said.rstrip("\n").count("\n") == 0
    assert said.isascii() or "”" in said
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (PER_SEED.replace(",1000,-20", ""), "line 3 has 3 cells, the header 5"),
        (PER_SEED.replace("sac,1,", "sac,0.5,"), "line 3: seed cannot be '0.5'"),
        (PER_SEED.replace("1,1000", "1,1e3.5"), "line 3: env_step cannot be '1e3.5'"),
        (PER_SEED.replace("-20", '"-20,5"'), "line 3: return cannot be '-20,5'"),
        (SUMMARY.replace("-250,5", ",5"), "line 3: min and max belong together"),
        (SUMMARY.replace("-250,5", "-250,2.5"), "line 3: n cannot be '2.5'"),
        (SUMMARY.replace("-250,5", "-250,five"), "line 3: n cannot be 'five'"),
        (SUMMARY + SUMMARY.splitlines()[2] + "\n", "line 4: this step of this source was given before"),
        (SUMMARY.replace("-299", "-200"), "line 3: the median is not between min and max"),
        (SUMMARY.replace("\nPendulum-v1,sac,other", "\n\nPendulum-v1,sac,other"), "line 3 has 0 cells"),
    ],
)
def test_half_rows_rows_given_twice_and_other_numbers(
    tmp_path: Path, text: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.csv").write_text(text, encoding="utf-8")
    assert main(["import", str(tmp_path / "mine.csv"), "--results", str(tmp_path / "r")]) == 2
    said = capsys.readouterr().err
    assert f"mine.csv{', ' if 'line' in complaint and ':' in complaint else ': '}{complaint}" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (PER_SEED.replace("-20", ""), "1 row without a return left out"),
        (PER_SEED + PER_SEED.splitlines()[1] + "\n", "1 rows that repeat others were left out"),
        (PER_SEED.replace(",", "\t"), "seeds of each: 2; 2 evaluations"),
        (PER_SEED.replace(",", ";"), "seeds of each: 2; 2 evaluations"),
    ],
)
def test_what_was_left_out_is_said(
    tmp_path: Path, text: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.csv").write_text(text, encoding="utf-8")
    assert main(["import", str(tmp_path / "mine.csv"), "--results", str(tmp_path / "r")]) == 0
    assert line in capsys.readouterr().out


def test_toml_is_read_in_one_place() -> None:
    """Which skips a byte order mark and says what is wrong with the encoding."""
    readers = [
        path
        for path in REPO.glob("bench/**/*.py")
        if re.search(r"\btomllib\b", path.read_text(encoding="utf-8"))
    ]
    assert [path.relative_to(REPO).as_posix() for path in readers] == ["bench/disk.py"]

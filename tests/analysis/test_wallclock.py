"""Timing studies: what may share a table, which timing belongs to a run, and return against hours."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from bench.analysis.scores.load import load
from bench.analysis.wallclock import figures as wallclock_figures
from bench.analysis.wallclock import tables as wallclock_tables
from bench.analysis.wallclock import timings as wallclock
from bench.analysis.wallclock.timings import load_timings
from tests.analysis import helpers

QSM = {"hidden": [256, 256], "batch_size": 256, "T": 5}


def change(folder, edit, file="samples.csv"):
    frame = pd.read_csv(folder / file, dtype=str, keep_default_na=False)
    edit(frame).to_csv(folder / file, index=False)


@pytest.mark.seconds
def test_timings_of_other_hardware_or_execution_never_share_a_table(tmp_path):
    helpers.timing(tmp_path, "laptop", modes=("eager", "compile"))
    helpers.timing(tmp_path, "server")
    timing_sets, problems = load_timings(tmp_path)
    assert problems == []
    assert [timings.name for timings in timing_sets] == [
        "laptop-cpu-compile-1-float32",
        "laptop-cpu-eager-1-float32",
        "server-cpu-eager-1-float32",
    ]
    tables = wallclock_tables.all_tables(timing_sets)
    assert [table.name for table in tables[:2]] == [
        f"{name}-laptop-cpu-compile-1-float32" for name in ("wall_clock", "update_time")
    ]
    assert len(tables) == 8
    assert {len(table.rows) for table in tables[:6:2]} == {7}  # QSM and DQL at three T, SAC
    assert {len(table.rows) for table in tables[1:6:2]} == {4}  # two parts of QSM and DQL over T


def test_the_table_shows_median_and_p95_in_milliseconds(tmp_path):
    helpers.timing(tmp_path)
    (timings,) = load_timings(tmp_path)[0]
    table = wallclock_tables.all_tables([timings])[0]
    record = next(r for r in table.records if (r["algo"], r["T"]) == ("qsm", "5"))
    seconds = timings.seconds(algo="qsm", T="5", what="actor_update")
    assert len(seconds) == 30
    assert record["actor_update_ms"] == pytest.approx(1e3 * np.median(seconds))
    assert record["actor_update_ms_p95"] == pytest.approx(1e3 * np.percentile(seconds, 95))
    assert table.notes[0].endswith("dtype float32. Some CPU; 2 cores.")


@pytest.mark.seconds
def test_other_sizes_go_to_a_table_of_their_own(tmp_path):
    folder = helpers.timing(tmp_path)

    def add_width(frame):
        wide = frame[(frame["algo"] == "sac") & (frame["what"] == "update")].assign(hidden="512x512")
        return pd.concat([frame, wide])

    change(folder, add_width)
    (timings,) = load_timings(tmp_path)[0]
    assert timings.reference_size() == {"hidden": "256x256", "batch": "256", "pack": "1"}
    main, sizes, *_ = wallclock_tables.all_tables([timings])
    assert len(main.rows) == 7
    assert len(sizes.rows) == 8


def test_an_algorithm_has_its_recorded_title_in_every_table_and_figure(tmp_path):
    folder = helpers.timing(tmp_path)
    for file in ("samples.csv", "facts.csv"):
        change(folder, lambda frame: frame.replace({"algo": {"sac": "mine-critic=simba"}}), file)
    own = "Mine, by its authors critic=simba"
    titled = lambda frame: frame.assign(title=np.where(frame["algo"].str.contains("mine"), own, ""))  # noqa: E731
    change(folder, titled, "facts.csv")
    (timings,) = load_timings(tmp_path)[0]
    tables = [*wallclock_tables.all_tables([timings]), wallclock_tables.compact(timings)]
    shown = {table.name: {row[0] for row in table.rows} for table in tables}
    assert sum(own in names for names in shown.values()) == 3
    assert not any("mine" in str(name) for names in shown.values() for name in names)
    (ax,) = wallclock_figures.where_time_goes(timings).axes
    assert [label.get_text() for label in ax.get_yticklabels()][-1] == own


@pytest.mark.seconds
def test_what_is_counted_has_a_table_for_each_study(tmp_path):
    helpers.timing(tmp_path, modes=("eager", "compile"))
    tables = wallclock_tables.all_tables(load_timings(tmp_path)[0])
    (table,) = [table for table in tables if table.name == "wall_clock_facts-idle"]
    assert [(record["algo"], record["T"]) for record in table.records] == [
        *((algo, T) for algo in ("qsm", "dql") for T in ("1", "5", "20")),
        ("sac", ""),
    ]
    record = table.records[1]
    assert record["actor_parameters"] == 90000
    assert record["peak_memory_mb"] == 210.5
    assert record["network_calls_act"] == 5
    assert record["candidates"] == "1"
    assert [entry if isinstance(entry, str) else entry.text for entry in table.rows[-1]] == (
        ["SAC", "256x256", "256", "–", "1", "90,000", "150,000", "0.70", "8", "1", "210"]
    )


def test_slope_over_T(tmp_path):
    helpers.timing(tmp_path)
    (timings,) = load_timings(tmp_path)[0]
    figure = wallclock_figures.update_time_over_T(timings)
    shown = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    slopes = {text.split(":")[0]: float(text.split()[1]) for text in shown}
    assert slopes["DQL"] == pytest.approx(3.0, rel=0.05)
    assert abs(slopes["QSM"]) < 0.05
    table = wallclock_tables.over_T(timings)
    found = {(record["algo"], record["what"]): record for record in table.records}
    slope = found["dql", "actor_update"]
    assert slope["slope_low"] < slope["slope_ms"] < slope["slope_high"]
    assert slope["slope_high"] - slope["slope_low"] < 0.5
    assert slope["T1_ms"] == pytest.approx(8, rel=0.05)
    assert slope["rounds"] == 10
    assert list(found) == [(algo, what) for algo in ("qsm", "dql") for what in ("update", "actor_update")]


def test_a_line_over_T_by_hand(tmp_path):
    folder = helpers.timing(tmp_path)

    def straight(frame):
        frame = frame[frame["T"] != ""]
        return frame.assign(seconds=[repr(1e-3 * (1 + 2 * int(T))) for T in frame["T"]])

    change(folder, straight)
    (timings,) = load_timings(tmp_path)[0]
    slope = wallclock.slope_over_T(timings, algo="qsm", what="update")
    assert slope.T.tolist() == [1, 5, 20]
    assert [slope.intercept, slope.slope, slope.low, slope.high] == pytest.approx([1e-3, *[2e-3] * 3])
    assert wallclock.slope_over_T(timings, algo="qsm", what="update", T="5") is None
    assert wallclock.slope_over_T(timings, algo="sac", what="update") is None


def test_the_whole_step_is_what_was_timed_not_the_sum_of_its_parts(tmp_path):
    folder = helpers.timing(tmp_path)
    change(
        folder,
        lambda frame: frame.assign(seconds=frame["seconds"].where(frame["what"] != "end_to_end", "0.0077")),
    )
    figure = wallclock_figures.where_time_goes(load_timings(tmp_path)[0][0])
    assert {text.get_text().strip() for text in figure.axes[0].texts} == {"7.7"}


def test_hours_are_steps_times_the_timed_seconds_per_step(tmp_path):
    helpers.timing(tmp_path)
    folder = helpers.study(tmp_path, algos=["qsm", "dql"])
    helpers.with_config(folder, **QSM)
    results = load(tmp_path, "made-up")
    timings, seconds = wallclock.seconds_per_step(results, load_timings(tmp_path)[0])
    timed = timings.seconds(algo="dql", T="5", what="end_to_end")
    assert seconds["dql"] == pytest.approx(np.median(timed))
    figure = wallclock_figures.return_against_hours(results, seconds)
    ends = sorted(max(line.get_xdata()) for line in figure.axes[0].lines)
    assert ends[-1] == pytest.approx(10_000 * seconds["dql"] / 60)  # minutes, as it is less than an hour
    assert "Minutes" in figure.get_supxlabel()


@pytest.mark.parametrize("change_config", [{"T": 7}, {"hidden": [64, 64]}, {"batch_size": 100}])
def test_a_timing_of_another_size_is_no_match(tmp_path, change_config):
    helpers.timing(tmp_path)
    folder = helpers.study(tmp_path, algos=["qsm", "dql"])
    helpers.with_config(folder, **(QSM | change_config))
    results = load(tmp_path, "made-up")
    assert wallclock.seconds_per_step(results, load_timings(tmp_path)[0]) == (None, {})
    assert wallclock_figures.return_against_hours(results, {}) is None


def test_where_several_match_the_runs_own_execution_is_taken(tmp_path):
    helpers.timing(tmp_path, modes=("compile", "eager"))
    folder = helpers.study(tmp_path, algos=["qsm"])
    helpers.with_config(folder, **QSM)
    timings, _ = wallclock.seconds_per_step(load(tmp_path, "made-up"), load_timings(tmp_path)[0])
    assert timings.how["mode"] == "eager"


@pytest.mark.parametrize(
    "edit",
    [
        lambda frame: frame.drop(columns="seconds"),
        lambda frame: frame.assign(seconds="soon"),
        lambda frame: frame.assign(seconds="-1.0"),
        lambda frame: frame.assign(algo="../../etc"),
        lambda frame: frame.assign(mode="<script>"),
        lambda frame: frame.assign(T="long"),
        lambda frame: frame.assign(candidates="-1"),
        lambda frame: frame.assign(round="inf"),
    ],
)
def test_a_damaged_timing_study_is_left_out_and_named(tmp_path, edit):
    change(helpers.timing(tmp_path, "bad"), edit)
    helpers.timing(tmp_path, "good")
    timing_sets, (problem,) = load_timings(tmp_path)
    assert [timings.study for timings in timing_sets] == ["good"]
    assert problem.startswith("timing/bad: left out: samples.csv")


@pytest.mark.parametrize("text", ["", "[" * 99_999, "[]", '{"hardware": NaN}', "{"])
def test_a_timing_study_of_a_damaged_origin_is_left_out_and_named(tmp_path, text):
    (helpers.timing(tmp_path, "bad") / "provenance.json").write_text(text)
    timing_sets, (problem,) = load_timings(tmp_path)
    assert timing_sets == []
    assert problem.startswith("timing/bad: left out: provenance.json")


@pytest.mark.seconds
@pytest.mark.parametrize("gpus", [None, 3, "one", [1, None], {"a": 1}])
def test_hardware_of_any_shape_is_one_line(tmp_path, gpus):
    folder = helpers.timing(tmp_path)
    (folder / "provenance.json").write_text(json.dumps({"hardware": {"cpu": "Some CPU", "gpus": gpus}}))
    (timings,) = load_timings(tmp_path)[0]
    assert timings.hardware.startswith("Some CPU")


def test_no_link_out_of_the_results_is_followed_to_a_timing_study(tmp_path):
    (tmp_path / "results" / "timing").mkdir(parents=True)
    (tmp_path / "results" / "timing" / "theirs").symlink_to(helpers.timing(tmp_path / "elsewhere"))
    timing_sets, (problem,) = load_timings(tmp_path / "results")
    assert timing_sets == []
    assert "a symbolic link leads out of" in problem


def test_no_facts_and_no_provenance_still_give_times(tmp_path):
    folder = helpers.timing(tmp_path)
    (folder / "facts.csv").unlink()
    (folder / "provenance.json").write_text(json.dumps({"hardware": "<b>"}))
    table, _, facts = wallclock_tables.all_tables(load_timings(tmp_path)[0])
    assert facts.rows == []
    assert len(table.rows) == 7
    (folder / "provenance.json").write_text("[")
    assert load_timings(tmp_path)[1] != []


def test_the_round_is_the_unit_of_a_ratio():
    rng = np.random.default_rng(0)
    speed = np.exp(0.2 * rng.standard_normal(10))  # of the machine in each round, for both alike
    slow, fast = dict(enumerate(3 * speed)), dict(enumerate(speed))
    value, low, high, n = wallclock.ratio_over_rounds(slow, fast | {10: 5.0}, 2000, 0.95)
    assert (value, low, high, n) == pytest.approx((3, 3, 3, 10))  # the same rounds on both sides
    noisy = {number: seconds * np.exp(0.1 * rng.standard_normal()) for number, seconds in slow.items()}
    value, low, high, n = wallclock.ratio_over_rounds(noisy, fast, 2000, 0.95)
    assert low < value < high
    assert wallclock.ratio_over_rounds(slow, {11: 1.0}, 100, 0.95)[3] == 0


def test_round_medians(tmp_path):
    helpers.timing(tmp_path)
    (timings,) = load_timings(tmp_path)[0]
    medians = wallclock.round_medians(timings, algo="sac", what="update")
    assert sorted(medians) == list(range(10))
    samples = timings.at(algo="sac", what="update")
    assert medians[4] == pytest.approx(np.median(samples[samples["round"] == 4]["seconds"]))

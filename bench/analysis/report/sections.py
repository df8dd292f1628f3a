"""What the report shows, in its order: the tables and figures that a study has data for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.text import Text

from bench.analysis import coverage
from bench.analysis.external import beside, others
from bench.analysis.external import scores as external
from bench.analysis.scores import comparisons as comparison_tables
from bench.analysis.scores import efficiency, figures, metrics, sensitivity
from bench.analysis.scores import runs as run_tables
from bench.analysis.scores import tables as score_tables
from bench.analysis.scores.results import Results
from bench.analysis.table import Table
from bench.analysis.verdicts import Verdict
from bench.analysis.wallclock import cost, packs, perf, perf_tables
from bench.analysis.wallclock import figures as wallclock_figures
from bench.analysis.wallclock import tables as wallclock_tables
from bench.analysis.wallclock import timings as wallclock
from bench.analysis.wallclock.timings import TimingSet
from bench.text import one_line

VIDEO = "video.gif"  # in a run directory


@dataclass(frozen=True)
class Picture:
    """A figure and what it shows. name: the stem of its files."""

    name: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Section:
    """A part of the page, shown in this order: text, verdicts, pictures, tables, videos, commands.

    videos: paths below the study's folder. detail: background, which the page shows closed.
    """

    id: str
    title: str
    text: Sequence[str] = ()
    verdicts: Sequence[Verdict] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    videos: Sequence[str] = ()
    commands: Sequence[str] = ()
    detail: bool = False


# Takes a study's results and the timings beside them, and makes a section of them.
Maker = Callable[[Results, Sequence[TimingSet]], Section]


def sections(results: Results, more: Sequence[Maker] = ()) -> list[Section]:
    """Every section that has something to show. Draws the figures, so call it inside `style.drawing`.

    more: sections that belong to one paper and not to every comparison; they follow the returns.
    """
    timing_sets, problems = wallclock.load_timings(results.root)
    every = [
        _returns(results),
        *(make(results, timing_sets) for make in more),
        _aggregates(results),
        _comparisons(results),
        _sensitivity(results),
        _metrics(results),
        _beside(results),
        _wall_clock(results, timing_sets, problems),
        _runs(results),
        _origin(results),
    ]
    return [
        section
        for section in every
        if any((section.text, section.verdicts, section.pictures, section.tables, section.videos))
    ]


def _returns(results: Results) -> Section:
    single = "; thin lines are single runs" if figures.shows_single_runs(results) else ""
    caption = (
        f"Return against environment steps: mean over seeds with its 95% bootstrap interval{single}. Evaluation "
        f"{results.evaluation}."
    )
    return Section(
        "returns",
        "Returns",
        text=() if results.cells else ["No run has been scored yet."],
        pictures=_pictures(("learning_curves", caption, figures.learning_curves(results))),
        tables=_with_rows(score_tables.final_return(results), score_tables.scores(results)),
    )


def _aggregates(results: Results) -> Section:
    score = results.score_name
    curve = f"IQM of {score} over tasks and seeds, with 95% stratified bootstrap intervals."
    profiles = f"Performance profiles: share of runs whose final {score} is above τ, with 95% intervals."
    improvement = (
        "Probability that a run of one algorithm has a higher final return than one of the other on the same task, "
        "averaged over tasks, with 95% intervals; 0.5: neither is better."
    )
    text = []
    if len(results.envs) > 1 and results.cells and not results.bounds:
        text.append(
            "No aggregates: the returns of these tasks share no scale. Runs of the random policy give one, or "
            'NORMALISE="random sac", or bounds (docs/analysis.md).'
        )
    return Section(
        "aggregates",
        "Over all tasks",
        text=text,
        pictures=_pictures(
            ("aggregate_iqm", curve, figures.aggregate_iqm(results)),
            ("performance_profiles", profiles, figures.performance_profiles(results)),
            ("probability_of_improvement", improvement, figures.probability_of_improvement(results)),
        ),
        tables=_with_rows(
            *comparison_tables.aggregates(results),
            comparison_tables.improvements(results),
            comparison_tables.by_task(results),
        ),
    )


def _comparisons(results: Results) -> Section:
    caption = (
        "Sample efficiency: return at the last evaluation at or before each share of the environment steps, with 95% "
        "intervals over seeds."
    )
    table, figure = efficiency.sample_efficiency(results)
    return Section(
        "policies",
        "Speed of learning and final policies",
        pictures=_pictures(("sample_efficiency", caption, figure)),
        tables=_with_rows(
            table,
            comparison_tables.steps_to_90(results),
            comparison_tables.final_policies(results),
        ),
        videos=[
            results.address(run, VIDEO)
            for run in (score.run for score in results.runs if score.scored)
            if (run.path / VIDEO).is_file()
        ],
        detail=True,
    )


def _sensitivity(results: Results) -> Section:
    caption = (
        "Final return over {}, one line for variants that differ in nothing else: mean over seeds with its 95% "
        "interval."
    )
    made, left_out = sensitivity.sensitivity_figures(results, results.choice.sensitivity)
    pictures = _pictures(*((f"sensitivity-{name}", caption.format(name), made[name]) for name in made))
    return Section("sensitivity", "Sensitivity to settings", text=_left_out(left_out), pictures=pictures)


def _metrics(results: Results) -> Section:
    caption = (
        "{}, as logged in training, averaged between evaluations: mean over seeds with its 95% bootstrap interval, as "
        "far as all seeds have it."
    )
    made, left_out = metrics.metric_figures(results, results.choice.metrics)
    pictures = _pictures(*((f"metric-{name}", caption.format(name), made[name]) for name in made))
    return Section("metrics", "Logged metrics", text=_left_out(left_out), pictures=pictures)


def _beside(results: Results) -> Section:
    found, problems = external.read_all(results.root)
    scores, curves = external.summarised(found), others.curves_in(found)
    points = others.points_beside(results, scores, curves)
    keys, not_there = others.chosen(results, curves, set(zip(points["algo"], points["source"])))
    text = _left_out([*problems, *not_there])
    lacking = [] if results.choice.others else beside.other_algorithms(results, scores)
    if lacking:
        text.append(
            f"Not shown, as this study has no runs of the same algorithm: {', '.join(lacking)}. "
            f'OTHERS="{" ".join(lacking[:2])}" shows them.'
        )
    caption = (
        "Our mean learning curves (thick) beside curves measured by others (thin, with 95% intervals over their seeds; "
        "open markers: evaluations, bars: from the lowest to the highest seed), whose protocols differ from ours."
    )
    return Section(
        "external",
        "Beside external scores",
        text=text,
        pictures=_pictures(("external", caption, others.figure(results, curves, keys, points))),
        tables=_with_rows(others.table(results, curves, keys), beside.table(results, scores)),
        detail=True,
    )


def _wall_clock(results: Results, timing_sets: Sequence[TimingSet], problems: Sequence[str]) -> Section:
    used, seconds = wallclock.seconds_per_step(results, timing_sets)
    compared, more_problems = perf.load(results.root)
    problems = [*problems, *more_problems]
    try:
        costs = cost.tables(results.root, timing_sets)
    except (OSError, ValueError) as error:
        costs = []
        problems.append(one_line(error))
    seeds = packs.tables(timing_sets)
    timing_sets = [timings for timings in timing_sets if timings.sizes is None]
    text = _left_out(problems)
    lacking = [label for label in results.learners if label not in seconds]
    if lacking:
        text.append(
            "Return against hours needs a timing of the same algorithm, widths, batch and T on an idle "
            f"machine (make timing); there is none for {', '.join(lacking)}."
        )
    hours = (
        "Return against hours: environment steps times the median time per step on an idle machine, from the "
        f"timing study {used.title if used else ''}; never the runs' own clocks, which shared their machine."
    )
    drawn = [("return_against_hours", hours, wallclock_figures.return_against_hours(results, seconds))]
    for timings in timing_sets:
        drawn += list(_timing_figures(timings))
    return Section(
        "wall-clock",
        "Wall-clock",
        text=text,
        pictures=_pictures(*drawn),
        tables=_with_rows(
            *costs, *seeds, *perf_tables.all_tables(compared), *wallclock_tables.all_tables(timing_sets)
        ),
        detail=True,
    )


def _timing_figures(timings: TimingSet) -> Iterator[tuple[str, str, Figure | None]]:
    size = timings.reference_size()
    where = f"{timings.title}; widths {size['hidden']}, batch {size['batch']}."
    over_T = f"Median update time over the denoising steps T, with least-squares lines; {where}"
    parts = f"Where the time of one environment step of training goes; {where}"
    yield f"update_time-{timings.name}", over_T, wallclock_figures.update_time_over_T(timings)
    yield f"where_time_goes-{timings.name}", parts, wallclock_figures.where_time_goes(timings)


def _runs(results: Results) -> Section:
    return Section("runs", "Runs", tables=_with_rows(run_tables.runs(results)), detail=True)


def _origin(results: Results) -> Section:
    return Section(
        "provenance",
        "Provenance and how to reproduce",
        text=["Run the grid again, and make this report from the results alone:"],
        tables=_with_rows(run_tables.configurations(results), run_tables.provenance(results)),
        commands=[*(run_tables.command(part) for part in results.parts or [results]), results.again],
        detail=True,
    )


def _pictures(*drawn: tuple[str, str, Figure | None]) -> list[Picture]:
    found = []
    for name, caption, figure in drawn:
        if figure is not None:
            few = any("†" in text.get_text() for text in figure.findobj(Text))
            found.append(Picture(name, f"{caption} {coverage.FEW}" if few else caption, figure))
    return found


def _left_out(lines: Sequence[str]) -> list[str]:
    return [f"Left out: {line}" for line in lines]


def _with_rows(*tables: Table) -> list[Table]:
    return [table for table in tables if table.rows]

"""How many updates a second of training makes as more seeds train in lock-step (bench/timing/packs.py)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.analysis.table import Entry, Table, number
from bench.analysis.wallclock.timings import TimingSet

SIZES = "packs"  # what provenance.json calls the protocol
WHAT = {"update": "updates", "end_to_end": "steps"}


def tables(timing_sets: Sequence[TimingSet]) -> list[Table]:
    """One per machine and execution."""
    return [_table(timings) for timings in timing_sets if timings.sizes == SIZES]


def _table(timings: TimingSet) -> Table:
    samples = timings.samples[timings.samples["what"].isin(WHAT)]
    timed = samples[["what", "pack"]].drop_duplicates().itertuples(index=False)
    columns = sorted(
        ((what, int(pack)) for what, pack in timed), key=lambda key: (list(WHAT).index(key[0]), key[1])
    )
    rows: list[list[Entry]] = []
    records: list[dict[str, object]] = []
    for label in dict.fromkeys(samples["algo"]):
        own = samples[samples["algo"] == label]
        size = {name: own[name].iloc[0] for name in ("algo", "hidden", "batch", "T")}
        title = timings.shown(label)
        record: dict[str, object] = {**size, "title": title, **timings.how}
        row: list[Entry] = [title]
        for what, pack in columns:
            seconds = timings.seconds(**{**size, "what": what, "pack": str(pack)})
            rate = pack / float(np.median(seconds)) if len(seconds) else float("nan")
            record[f"{what}_per_second_{pack}"] = rate
            record[f"{what}_n_{pack}"] = len(seconds)
            row.append(number(rate, 0))
        rows.append(row)
        records.append(record)
    headers = ["Algorithm", *(f"{WHAT[what]}/s, {pack} seed{'s' * (pack > 1)}" for what, pack in columns)]
    protocol = timings.provenance.get("protocol", {})
    workers = protocol.get("env_workers") or 0
    notes = [
        "Of all seeds of a pack together: the number of seeds over the median seconds of "
        f"{min((len(g) for _, g in samples.groupby(['algo', 'what', 'pack'], observed=True)), default=0)} bursts. "
        "Networks of 256-256, batches of 256, five denoising steps; everything else as the authors have it. Steps: "
        "with acting, the environment (cheetah-run) and the replay buffer, without evaluation"
        + (f"; environments of a pack are stepped by up to {workers} processes." if workers else "."),
        f"{timings.title.partition(': ')[2]}, on {timings.hardware or timings.study}.",
    ]
    return Table(
        f"packs-{timings.name}",
        f"Updates and steps a second, by seeds in a pack: {timings.how['mode']}",
        headers,
        rows,
        records,
        notes,
    )

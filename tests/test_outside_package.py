"""An algorithm and a critic of another package, installed into a folder of its own, asking all of the interface.

The package is tests/outside_package: an order of the update, a second batch, a noise that depends on the state, a
learned width of it, an own critic with a running statistic and draws, phases, and a schedule over the run's length.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.installed import bench, install
from tests.launching import REPO


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the package is installed into."""
    return install(REPO / "tests" / "outside_package", tmp_path_factory.mktemp("outside"))


@pytest.mark.slow
def test_it_meets_every_demand(site: Path, tmp_path: Path) -> None:
    done = bench(site, tmp_path, "check", "outside", "td3:critic=elu-critic")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all rules hold" in done.stdout


@pytest.mark.slow
def test_it_runs_in_a_grid_and_says_where_its_code_comes_from(site: Path, tmp_path: Path) -> None:
    done = bench(
        site, tmp_path, "run", "--algos", "outside outside:warmth=0.5 td3:critic=elu-critic", "--envs", "Pendulum-v1",
        "--seeds", "1", "--jobs", "1",
        "--set", "steps=300 random_steps=100 eval_episodes=1 final_episodes=1 eval_every=150",
    )  # fmt: skip
    assert "3 of 3 runs done" in done.stdout, done.stdout + done.stderr
    records = {
        p.parent.parent.name: json.loads(p.read_text()) for p in tmp_path.glob("results/*/*/*/*/run.json")
    }
    found = {label: record["attempts"][-1]["provenance"]["plugins"] for label, record in records.items()}
    assert found.keys() == {"outside", "outside-warmth=0.5", "td3-critic=elu-critic"}
    assert records["outside-warmth=0.5"]["title"] == "Outside"
    assert "Outside warmth=0.5" in done.stdout  # in the table at the end
    assert [p["offers"] for p in found["outside"]] == ["algorithm outside"]
    assert [p["offers"] for p in found["td3-critic=elu-critic"]] == ["critic elu-critic"]
    for (plugin,) in found.values():
        assert (plugin["distribution"], plugin["version"]) == ("outside-package", "1.2.3")
        assert len(plugin["modules_sha256"]) == 64
        assert plugin["git"]["commit"] is None  # installed, not in a checkout


@pytest.mark.slow
def test_a_setting_that_means_nothing_to_it_is_refused(site: Path, tmp_path: Path) -> None:
    done = bench(site, tmp_path, "run", "--algos", "outside:tau=0.01", "--envs", "Pendulum-v1")
    assert done.returncode == 2
    assert done.stderr == "bench: outside: tau = 0.01: this algorithm makes no use of tau\n"

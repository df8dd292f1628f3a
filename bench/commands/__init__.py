"""The commands, by the names that the command line calls."""

from bench.commands.grid import cancel as cancel
from bench.commands.grid import run_grid as run_grid
from bench.commands.grid import status as status
from bench.commands.grid import submit as submit
from bench.commands.measure import perf as perf
from bench.commands.measure import timing as timing
from bench.commands.results import check as check
from bench.commands.results import docs as docs
from bench.commands.results import experiments as experiments
from bench.commands.results import figures as figures
from bench.commands.results import import_scores as import_scores
from bench.commands.results import studies as studies
from bench.commands.results import video as video

"""How many modes does a policy have? Counted on the density of its samples, whatever Q is there.

The samples are counted in squares of [-1, 1]^2 and smoothed with a Gaussian of one square (mirrored at the edge).
Squares are then taken from the densest downwards, each joining its neighbours: a peak whose region meets that of a
higher one ends there. It is a mode if its density is at least `STANDS_OUT` times that of the saddle where it ends and
its region holds at least `SHARE` of all samples. This counts peaks by their persistence (Chazal, Guibas, Oudot, Skraba:
Persistence-Based Clustering in Riemannian Manifolds, J. ACM 2013), with a ratio in the place of a difference.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Array = NDArray[np.float64]

CELLS = 20  # per axis
# far above the noise of 8,192 samples: a smoothed square of a flat density has 6% of its own
STANDS_OUT = 1.5
SHARE = 0.05  # as for an optimum that counts as covered


def count_modes(mass: Array) -> int:
    """The modes of a density given as shares of samples in squares (CELLS, CELLS)."""
    density = gaussian_filter(mass, 1.0, mode="reflect")
    region = np.full(mass.shape, -1)  # the peak that a square belongs to
    peak: list[float] = []  # densities, highest first
    held: list[float] = []  # share of samples in the region
    modes = 1  # the highest
    for flat in np.argsort(-density, axis=None, kind="stable"):
        i, j = np.unravel_index(flat, mass.shape)
        around = region[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
        met = np.unique(around[around >= 0])
        if len(met) == 0:
            region[i, j] = len(peak)
            peak.append(float(density[i, j]))
            held.append(float(mass[i, j]))
            continue
        highest = met[0]
        for lower in met[1:]:
            modes += int(peak[lower] >= STANDS_OUT * density[i, j] and held[lower] >= SHARE)
            held[highest] += held[lower]
            region[region == lower] = highest
        region[i, j] = highest
        held[highest] += float(mass[i, j])
    return modes

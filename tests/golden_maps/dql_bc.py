"""The Diffusion-QL authors' files."""

from tests.golden_maps.references import DiffusionQLAuthors


class Reader(DiffusionQLAuthors):
    algorithm = "dql-bc"

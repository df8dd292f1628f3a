"""The QSM authors' files."""

from tests.golden_maps.references import QSMAuthors


class Reader(QSMAuthors):
    algorithm = "sac"

"""DPMD's files."""

from torch import Tensor

from tests.golden_maps.relax import Relax, best_of


class Reader(Relax):
    algorithm = "dpmd"

    def numbered(self, prefix: str, numbers: list[Tensor]) -> dict[str, Tensor]:
        if prefix.startswith("act/"):
            return best_of(numbers, "")
        t, noise = numbers[3:]
        return best_of(numbers[:3], "target.") | {"actor.t": t, "actor.noise": noise}

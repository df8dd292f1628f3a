"""SDAC's files."""

from torch import Tensor

from tests.golden_maps.relax import Relax, best_of


class Reader(Relax):
    algorithm = "sdac"
    KEPT_FOR_NOTHING = ("step", "running/")

    def numbered(self, prefix: str, numbers: list[Tensor]) -> dict[str, Tensor]:
        if prefix.startswith("act/"):
            return best_of(numbers, "")
        t, noise, z = numbers[6:]
        forward = {"actor.t": t, "actor.noise": noise, "actor.z": z}
        return best_of(numbers[:3], "target.") | best_of(numbers[3:6], "actor.") | forward

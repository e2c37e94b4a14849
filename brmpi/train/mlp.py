"""A perceptron of several layers with rectifiers between them.

    mpirun -hostfile hostfiles/all python -m brmpi.train.mlp sims/train/digits-mlp.toml
"""

from dataclasses import dataclass

from brmpi import program
from brmpi.case import key
from brmpi.train import keys
from brmpi.train.program import Training


@dataclass(frozen=True)
class Case(keys.Case):
    """The keys of a perceptron."""

    hidden: tuple[int, ...] = key((256, 128), "widths of the layers before the last", at_least=1, at_most=2**20)
    epochs: int = key(40, "times that every sample is taken", at_least=0, at_most=10**7, free=True)


class Mlp(Training):
    """A perceptron of several layers, trained on all ranks."""

    name = "mlp"
    Case = Case
    chunk = 256

    def sizes(self):
        """Widths of the layers before the last."""
        return {"hidden": list(self.case.hidden)}


if __name__ == "__main__":
    program.main(Mlp)

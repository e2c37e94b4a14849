"""Softmax regression: for each class one weighted sum of the inputs.

    python -m brmpi.train.softmax --set data=wine
"""

from dataclasses import dataclass

from brmpi import program
from brmpi.case import key
from brmpi.train import keys
from brmpi.train.program import Training


@dataclass(frozen=True)
class Case(keys.Case):
    """The keys of a softmax regression."""

    epochs: int = key(50, "times that every sample is taken", at_least=0, at_most=10**7, free=True)
    rate: float = key(0.01, "learning rate", above=0)


class Softmax(Training):
    """Softmax regression, trained on all ranks."""

    name = "softmax"
    Case = Case


if __name__ == "__main__":
    program.main(Softmax)

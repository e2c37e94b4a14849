"""A small convolutional net for images, by matrix products (im2col).

    mpirun -hostfile hostfiles/all python -m brmpi.train.conv sims/train/digits-conv.toml
"""

from dataclasses import dataclass

from brmpi import program
from brmpi.case import key
from brmpi.errors import BadInput
from brmpi.train import keys
from brmpi.train.batches import AUGMENTATIONS
from brmpi.train.optimizers import OPTIMIZERS
from brmpi.train.program import Training


@dataclass(frozen=True)
class Case(keys.Case):
    """The keys of a convolutional net."""

    channels: tuple[int, ...] = key((32, 64), "of each layer of 3 x 3 squares; from the second on, the largest of four "
                                    "pixels is kept", at_least=1, at_most=4096)
    hidden: tuple[int, ...] = key((128,), "widths of the layers between those and the last", at_least=1, at_most=2**20)
    augment: tuple[str, ...] = key(("shift",), "changes of inputs, drawn anew in each epoch", choices=AUGMENTATIONS)
    epochs: int = key(30, "times that every sample is taken", at_least=0, at_most=10**7, free=True)
    optimizer: str = key("adamw", "how parameters follow gradients", choices=OPTIMIZERS)
    rate: float = key(2e-3, "learning rate", above=0)
    decay: float = key(0.05, "weight decay", at_least=0)

    def problem(self):
        """A sentence where keys contradict each other, else None."""
        return "channels has no value: must have one at least" if not self.channels else super().problem()


class Conv(Training):
    """A small convolutional net, trained on all ranks."""

    name = "conv"
    Case = Case

    def sizes(self):
        """Channels and widths of the layers."""
        return {"channels": list(self.case.channels), "hidden": list(self.case.hidden)}

    def _images(self, case):
        if len(self.samples.shape) not in (2, 3):
            raise BadInput(f"data = {case.data!r}: samples have shape {self.samples.shape}: must be images, (height, "
                           "width) or (height, width, channels)")
        super()._images(case)


if __name__ == "__main__":
    program.main(Conv)

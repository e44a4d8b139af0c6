"""What is changed in heavyball 3.2.1 itself when it is imported; everything else is done from outside."""

from __future__ import annotations

import warnings

from heavyball import chainable, utils

from dist_trainer.optimizers.eager import REPLACED
from dist_trainer.optimizers.muon import orthogonalize_all

utils.compile_mode = None  # until compilation.set_compilation says otherwise

# A PSGD step evaluates a schedule of its own on a tensor, which makes the host wait for the device, to learn whether a
# cache is worth while that is not in use here.
utils.precond_update_prob_schedule = lambda: lambda step: 1.0

for _name, _function in REPLACED.items():
    setattr(utils, _name, _function)
chainable.orthogonalize_update = chainable.no_state(orthogonalize_all)

# Said of every schedule, every fixed scale and every default rank; all are meant.
for _message in (
    "Learning rate changed between",
    "It's recommended to use precond_init_scale",
    "rank=None",
    "rank was",
):
    warnings.filterwarnings("ignore", message=_message, category=UserWarning)

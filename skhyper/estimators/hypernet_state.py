"""The fitted state of a hypernetwork as plain dictionaries of numpy arrays, and back."""

from typing import Any

import numpy as np
import torch

from ..core.noise.inputs import Inputs
from ..core.noise.scaling import Scaling
from ..core.noise.state import State


def to_arrays(values: Any) -> Any:
    """Tensors in nested tuples to arrays in nested lists."""
    if isinstance(values, torch.Tensor):
        return values.detach().cpu().numpy().copy()
    if isinstance(values, tuple | list):
        return [to_arrays(value) for value in values]
    return values


def to_tensors(values: Any) -> Any:
    """The inverse, with tuples for lists."""
    if isinstance(values, np.ndarray):
        return torch.from_numpy(values.copy())
    if isinstance(values, list):
        return tuple(to_tensors(value) for value in values)
    return values


def dump_state(state: State) -> dict[str, Any]:
    """A state as a dictionary."""
    return {name: to_arrays(value) for name, value in state._asdict().items()}


def load_state(stored: dict[str, Any]) -> State:
    """The inverse of `dump_state`."""
    values = {name: to_tensors(value) for name, value in stored.items()}
    scaling, columns, frequencies = values["inputs"]
    inputs = Inputs(Scaling(*scaling), columns, frequencies)
    return State(**{**values, "inputs": inputs, "y_scaling": Scaling(*values["y_scaling"])})

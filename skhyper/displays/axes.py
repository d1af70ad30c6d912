"""The one place that asks for matplotlib."""

from typing import Any


def get_axes(ax: Any, n: int = 1) -> list[Any]:
    """N axes below each other: new ones unless some are given.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If the number of given axes differs.
    """
    if ax is None:
        try:
            from matplotlib import pyplot as plt
        except ImportError as error:
            raise ImportError("Displays need matplotlib: pip install 'skhyper[plot]'.") from error
        _, made = plt.subplots(n, 1, squeeze=False, sharex=n > 1)
        return list(made[:, 0])
    given = [ax] if hasattr(ax, "plot") else list(ax)
    if len(given) != n:
        raise ValueError(f"ax must hold {n} axes, got {len(given)}.")
    return given

"""Order statistics of measured values."""

from collections.abc import Iterable


def quantile(values: Iterable[float], q: float) -> float:
    """The smallest value that at least the share `q` of the values does not exceed."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("expected at least one value, but got none")
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]

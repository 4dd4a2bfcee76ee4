"""Which rank each layer gets: by energy, or under a budget of bytes for all of them.

The energy of a rank is the sum of the squared singular values up to it: the share of the layer's
output that is kept. Rank 0 stands for the whole layer, as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from autoneural.compress.cost import stored_bytes
from autoneural.compress.precision import Precision, bits_for
from autoneural.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A layer of `shape` [out, in] and the squared singular values of its output, largest first."""

    path: str
    shape: tuple[int, ...]
    energies: Sequence[float]
    tile: int

    def usable(self, rank: int) -> int:
        """The next multiple of the tile; 0 where such a pair is not cheaper than the layer."""
        outputs, inputs = self.shape
        rounded = -(-rank // self.tile) * self.tile
        return rounded if rounded * (outputs + inputs) < outputs * inputs else 0

    def ranks(self) -> list[int]:
        """All that are cheaper than the layer, ascending, then 0 for the layer."""
        tiles = range(self.tile, min(self.shape) + self.tile, self.tile)
        return [*(rank for rank in tiles if self.usable(rank)), 0]

    def kept(self, rank: int) -> float:
        """Share of the output's energy at `rank`."""
        total = sum(self.energies)
        return 1.0 if not rank or not total else sum(self.energies[:rank]) / total

    def bytes(self, rank: int, precision: Precision) -> int:
        """Stored, in `precision`."""
        outputs, inputs = self.shape
        if not rank:
            return stored_bytes(self.shape, bits_for(precision.weights, self.path))
        down, up = (bits_for(precision.weights, f"{self.path}.{half}") for half in ("down", "up"))
        return stored_bytes((rank, inputs), down) + stored_bytes((outputs, rank), up)


def by_energy(candidate: Candidate, share: float) -> int:
    """The least rank that keeps `share` of the energy; 0 where such a pair is not cheaper."""
    total, sums = sum(candidate.energies), accumulate(candidate.energies)
    return candidate.usable(next((r for r, s in enumerate(sums, 1) if s >= share * total), 1))


def by_budget(candidates: Iterable[Candidate], budget: int, precision: Precision) -> dict[str, int]:
    """Path -> rank, with at most `budget` bytes in all, spent tile by tile where it keeps most.

    Energy counts as a share of each layer's own. Raises UserError when the least ranks do not fit.
    """
    layers = {candidate.path: candidate for candidate in candidates}
    left = {path: candidate.ranks() for path, candidate in layers.items()}
    chosen = {path: ranks.pop(0) for path, ranks in left.items()}
    used = sum(layers[path].bytes(rank, precision) for path, rank in chosen.items())
    if used > budget:
        raise UserError(f"budget: {budget} bytes is too small; these layers take {used} at least")

    def step(path: str) -> tuple[int, float]:
        """Bytes and energy of the layer's next rank, on top of what it has."""
        layer, before, after = layers[path], chosen[path], left[path][0]
        more = layer.bytes(after, precision) - layer.bytes(before, precision)
        return more, layer.kept(after) - layer.kept(before)

    while steps := {path: step(path) for path in left if left[path]}:
        path = max(steps, key=lambda path: steps[path][1] / max(steps[path][0], 1))
        if used + steps[path][0] > budget:
            left[path] = []
            continue
        used += steps[path][0]
        chosen[path] = left[path].pop(0)
    return chosen

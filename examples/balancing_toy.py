"""Two losses of two numbers, and the path that every method takes through them.

The problem of Liu et al. (CAGrad, NeurIPS 2021), figure 1: a deep valley on either side, walls
between them, and a set of best compromises at the bottom. Each panel shows contours of the mean
loss, that set (grey) and where a method gets from five starts. Methods see nothing but the 2×2
Jacobian, as they would in any code of yours: ``method.direction(jacobian, losses)``.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from mtl_core.balancing import DBMTL, Equal, GradNorm
from mtl_core.balancing.catalogue import method_classes
from mtl_core.balancing.rowwise import RowBalancer

STARTS = ((-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0))
GIVEN = ("Gramian", "norms", "rows", "rows of two batches")  # what a Jacobian holds


def problem(a, b, *, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Losses (2, ...) and their Jacobian (2, 2, ...) at points (a, b).

    Args:
        a: first coordinate, a number or an array.
        b: second one.
        scale: factor on the first loss; the Nash-MTL paper takes 0.1.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    tanh, zero = np.tanh(b), np.zeros_like(a)
    values, slopes = [], []
    for side in (-1.0, 1.0):
        # A ravine (logarithm of a wall's distance) where b > 0, a bowl where b < 0.
        wall = 0.5 * (-a - 7) + tanh if side < 0 else 0.5 * (-a + 3) - tanh + 2
        floor = np.abs(wall) >= 5e-6
        u = np.log(np.maximum(np.abs(wall), 5e-6)) + 6
        inverse = np.where(floor, 1 / np.where(floor, wall, 1.0), 0.0)
        du = np.stack([-0.5 * inverse, -side * (1 - tanh**2) * inverse])
        v = ((a + side * 7) ** 2 + 0.1 * (b + 8) ** 2) / 10 - 20
        dv = np.stack([(a + side * 7) / 5, (b + 8) / 50])
        half = np.tanh(b / 2)
        c1, c2 = np.maximum(half, 0), np.maximum(-half, 0)
        bend = 0.5 * (1 - half**2)
        dc1, dc2 = np.where(b >= 0, bend, 0.0), np.where(b <= 0, -bend, 0.0)
        values.append(u * c1 + v * c2)
        slopes.append(du * c1 + dv * c2 + np.stack([zero, u * dc1 + v * dc2]))
    factor = np.array([scale, 1.0])
    losses, jacobian = np.stack(values), np.stack(slopes)
    return (
        losses * factor.reshape(-1, *[1] * (losses.ndim - 1)),
        jacobian * factor.reshape(-1, *[1] * (jacobian.ndim - 1)),
    )


def path(
    method: RowBalancer | None,
    start: Sequence[float],
    *,
    steps: int,
    lr: float = 1e-3,
    scale: float = 1.0,
) -> np.ndarray:
    """Points (steps + 1, 2) that Adam visits with a method's directions; None sums the rows."""
    x, m, v = np.array(start, float), np.zeros(2), np.zeros(2)
    points = [x]
    if method is not None:
        method.reporting = False
    for step in range(1, steps + 1):
        losses, jacobian = problem(*x, scale=scale)
        if method is None:
            d = jacobian.sum(0)
        else:
            d = method.direction(torch.from_numpy(jacobian), torch.from_numpy(losses)).numpy()
        m, v = 0.9 * m + 0.1 * d, 0.999 * v + 0.001 * d**2
        x = x - lr * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        points.append(x)
    return np.array(points)


def methods() -> dict[str, Callable[[], RowBalancer | None]]:
    """Every method of the catalogue that a Jacobian is enough for, and the plain sum."""
    found: dict[str, Callable[[], RowBalancer | None]] = {Equal.__name__: lambda: None}
    for cls in method_classes():
        # Losses are negative here, and GradNorm divides by them.
        if issubclass(cls, RowBalancer) and cls.needs in GIVEN and cls is not GradNorm:
            found[cls.__name__] = partial(DBMTL, log=False) if cls is DBMTL else cls
    return found


def best_compromises() -> np.ndarray:
    """Points (n, 2) where the gradients oppose each other."""
    a, b = np.meshgrid(np.linspace(-7, 7, 57), np.linspace(-8.7, -8.1, 601), indexing="ij")
    _, jacobian = problem(a, b)
    area = np.abs(jacobian[0, 0] * jacobian[1, 1] - jacobian[0, 1] * jacobian[1, 0])
    rows = np.arange(len(a))
    at = area.argmin(1)
    return np.stack([a[rows, at], b[rows, at]], 1)


def draw(paths: Mapping[str, Sequence[np.ndarray]], *, columns: int = 6) -> Figure:
    """A panel a method; paths run from light to dark."""
    columns = min(columns, len(paths))
    rows = -(-len(paths) // columns)
    figure = Figure(figsize=(1.9 * columns, 2.05 * rows), layout="constrained", dpi=80)
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat
    a, b = np.meshgrid(np.linspace(-10, 10, 160), np.linspace(-10, 10, 160))
    mean = problem(a, b)[0].mean(0)
    compromises = best_compromises()
    for (name, found), axes in zip(paths.items(), grid, strict=False):
        axes.contour(a, b, mean, levels=12, colors="#D5D5D5", linewidths=0.5, linestyles="solid")
        axes.plot(*compromises.T, color="#888888", lw=3, solid_capstyle="round")
        for points in found:
            thin = points[:: max(1, len(points) // 200)]
            lines = LineCollection(np.stack([thin[:-1], thin[1:]], 1), cmap="plasma_r", lw=1.6)
            lines.set_array(np.linspace(0.15, 1, len(thin) - 1))
            axes.add_collection(lines)
            axes.plot(*points[0], "o", color="black", ms=2.5)
            axes.plot(*points[-1], "*", color="#0072B2", ms=6, mec="white", mew=0.3)
        axes.set_title(name, fontsize=8)
        axes.set(xlim=(-10, 10), ylim=(-10, 10), xticks=[], yticks=[])
    for axes in grid:
        axes.set_axis_off()
    return figure


def main() -> None:
    """Draw the methods that the command line names."""
    known = methods()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", default=list(known), choices=list(known))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--lr", type=float, default=0.005, help="of Adam; the papers': 0.001")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the first loss")
    parser.add_argument("--out", type=Path, default=Path("balancing_toy.png"))
    args = parser.parse_args()
    paths = {}
    for name in args.methods:
        paths[name] = [
            path(known[name](), start, steps=args.steps, lr=args.lr, scale=args.scale)
            for start in STARTS
        ]
        ends = "  ".join(f"({a:6.2f}, {b:6.2f})" for a, b in (p[-1] for p in paths[name]))
        print(f"{name:12s} {ends}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    draw(paths).savefig(args.out)
    print(f"Drawn: {args.out}")


if __name__ == "__main__":
    main()

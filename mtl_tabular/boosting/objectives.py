"""Losses of boosted scores and the derivatives that every stage of R-MTGB hands to its trees.

F (n, K) are scores of n rows, y their targets, G groups, T tasks. All functions take and return
NumPy arrays of the precision of F and have no state.
"""

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mtl_core.errors import ArgumentError

Floats: TypeAlias = NDArray[np.floating[Any]]

FLOOR = 1e-6
"""Least second derivative of a row handed to a tree."""
THETA_LIMIT = 6.0
"""Bound on the logits of group shares."""


class Loss(ABC):
    """Loss of a row as a function of its scores.

    Args:
        outputs: K, scores a row.
    """

    curvature: float = 1.0
    """Factor on the diagonal for trees: of softmax 2, which bounds the full matrix when the K trees
    of a round step at once (XGBoost does the same)."""

    def __init__(self, outputs: int = 1) -> None:
        if outputs < 1:
            raise ArgumentError("outputs", "be at least 1", outputs)
        self.outputs = outputs

    @abstractmethod
    def value(self, scores: Floats, targets: NDArray[Any]) -> Floats:
        """Loss (n,) of scores (n, K) and targets (n,)."""

    @abstractmethod
    def gradient(self, scores: Floats, targets: NDArray[Any]) -> Floats:
        """First derivatives by the scores, (n, K)."""

    @abstractmethod
    def hessian(self, scores: Floats, targets: NDArray[Any]) -> Floats:
        """Diagonal of the second derivatives by the scores, (n, K), at least 0."""

    @abstractmethod
    def intercept(self, targets: NDArray[Any], weights: Floats) -> Floats:
        """The constant score (K,) of least loss."""


class Squared(Loss):
    """½ (F - y)² of real targets, K = 1."""

    def value(self, scores: Floats, targets: NDArray[Any]) -> Floats:
        """½ (F - y)²."""
        squared: Floats = 0.5 * (scores[:, 0] - targets) ** 2
        return squared

    def gradient(self, scores: Floats, targets: NDArray[Any]) -> Floats:
        """F - y."""
        residual: Floats = scores - targets[:, None]
        return residual

    def hessian(self, scores: Floats, targets: NDArray[Any]) -> Floats:
        """1."""
        return np.ones_like(scores)

    def intercept(self, targets: NDArray[Any], weights: Floats) -> Floats:
        """The weighted mean."""
        return np.atleast_1d(np.average(targets, weights=weights))


class Logistic(Loss):
    """Cross-entropy of targets 0 and 1 with the logit of 1, K = 1."""

    def value(self, scores: Floats, targets: NDArray[Any]) -> Floats:
        """log(1 + exp(F)) - y F."""
        return np.logaddexp(0, scores[:, 0]) - targets * scores[:, 0]

    def gradient(self, scores: Floats, targets: NDArray[Any]) -> Floats:
        """σ(F) - y."""
        residual: Floats = sigmoid(scores) - targets[:, None]
        return residual

    def hessian(self, scores: Floats, targets: NDArray[Any]) -> Floats:
        """σ(F) (1 - σ(F))."""
        p = sigmoid(scores)
        return p * (1 - p)

    def intercept(self, targets: NDArray[Any], weights: Floats) -> Floats:
        """The log-odds."""
        share = np.clip(np.average(targets, weights=weights), 1e-6, 1 - 1e-6)
        return np.atleast_1d(np.log(share / (1 - share)))


class Softmax(Loss):
    """Cross-entropy of classes 0..K-1 with K logits."""

    curvature = 2.0

    def value(self, scores: Floats, targets: NDArray[Any]) -> Floats:
        """Logarithm of Σ exp(F), less F_y."""
        top = scores.max(1, keepdims=True)
        total = np.log(np.exp(scores - top).sum(1)) + top[:, 0]
        chosen: Floats = scores[np.arange(len(scores)), targets.astype(np.int64)]
        value: Floats = total - chosen
        return value

    def gradient(self, scores: Floats, targets: NDArray[Any]) -> Floats:
        """Probabilities less the one-hot targets."""
        p = softmax(scores)
        p[np.arange(len(scores)), targets.astype(np.int64)] -= 1
        return p

    def hessian(self, scores: Floats, targets: NDArray[Any]) -> Floats:
        """The exact diagonal p (1 - p)."""
        p = softmax(scores)
        return p * (1 - p)

    def intercept(self, targets: NDArray[Any], weights: Floats) -> Floats:
        """Logarithms of the class shares, a class without rows at 1e-6."""
        counts = np.bincount(targets.astype(np.int64), weights, self.outputs)
        logarithms: Floats = np.log(np.maximum(counts / counts.sum(), 1e-6))
        return logarithms


def sigmoid(z: Floats) -> Floats:
    """1 / (1 + exp(-z)), without overflow.

    >>> sigmoid(np.array([-1000.0, 0.0])).tolist()
    [0.0, 0.5]
    """
    half: Floats = 0.5 * (1 + np.tanh(0.5 * z))
    return half


def softmax(z: Floats) -> Floats:
    """Shares along the last axis."""
    e = np.exp(z - z.max(-1, keepdims=True))
    shares: Floats = e / e.sum(-1, keepdims=True)
    return shares


def group_shares(theta: Floats) -> Floats:
    """Shares π (T, G) of the groups in every task: softmax of (0, θ).

    Two groups give (1 - σ(θ), σ(θ)), the published form.

    Args:
        theta: (T, G-1).
    """
    return softmax(np.concatenate([np.zeros_like(theta[:, :1]), theta], 1))


def stage_derivatives(
    gradient: Floats, hessian: Floats, share: Floats | None = None
) -> tuple[Floats, Floats]:
    """First and second derivatives that a tree of one block gets, both (n, K).

    Args:
        gradient: g (n, K) of the rows' losses by their scores.
        hessian: h (n, K).
        share: (n,) with which the block enters each row's score: π of the row's task for a group,
            None for the shared and the task block, which enter fully.
    """
    if share is None:
        return gradient, np.maximum(hessian, FLOOR)
    column = share[:, None]
    return column * gradient, np.maximum(column**2 * hessian, FLOOR)


def theta_derivatives(
    gradient: Floats, hessian: Floats, groups: Floats, shares: Floats, tasks: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Derivatives of the total loss by θ, both (T, G-1), without a penalty.

    The first is Σ_i π_k g_i · (f_ik - f̄_i) over the rows of a task, f̄ = Σ_q π_q f_q; the second is
    its Gauss-Newton diagonal Σ_i π_k² (f_ik - f̄_i)ᵀ H_i (f_ik - f̄_i), never negative.

    Args:
        gradient: g (n, K).
        hessian: h (n, K).
        groups: scores f (G, n, K) of the group blocks.
        shares: π (T, G).
        tasks: (n,) in 0..T-1.
    """
    T, G = shares.shape
    own = shares[tasks]
    mean = np.einsum("ng,gnk->nk", own, groups)
    first, second = np.empty((T, G - 1)), np.empty((T, G - 1))
    for k in range(1, G):
        apart = own[:, k, None] * (groups[k] - mean)
        first[:, k - 1] = np.bincount(tasks, (gradient * apart).sum(1), T)
        second[:, k - 1] = np.bincount(tasks, (hessian * apart**2).sum(1), T)
    return first, second


def theta_step(
    theta: Floats, first: Floats, second: Floats, *, penalty: float, rate: float
) -> Floats:
    """θ after one damped Newton step, in [-6, 6].

    Args:
        theta: (T, G-1).
        first: of `theta_derivatives`.
        second: of `theta_derivatives`.
        penalty: λ of ½ λ θ², positive.
        rate: length of the step; a Newton step is cut to [-1, 1] before.
    """
    step = np.clip((first + penalty * theta) / (second + penalty), -1, 1)
    moved: Floats = np.clip(theta - rate * step, -THETA_LIMIT, THETA_LIMIT)
    return moved


def initial_theta(tasks: int, groups: int, seed: int) -> Floats:
    """θ (T, G-1) before training, 0.1 N(0, 1): what decides which group a task leans to first."""
    return 0.1 * np.random.default_rng(seed).standard_normal((tasks, groups - 1))

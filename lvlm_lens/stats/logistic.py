"""Many L2 logistic regressions at once, on one rotated copy of the data.

A logistic regression with an L2 penalty does not care about rotations of its features.  So the data
of one training set are rotated once into their own span, and every regression on it (every
regularisation strength, every shuffled label vector) is solved there together:

* ``n >= d``: the ``d x d`` scatter matrix ``Z'Z = Q S^2 Q'`` gives the rotation ``Q``;
* ``n <  d``: the ``n x n`` Gram matrix ``ZZ' = U S^2 U'`` gives the coordinates ``U S``, at most ``n`` of them,
  and the way back ``w = Z'U S^-1 b``.

In these coordinates ``Z'Z`` is diagonal.  Newton's equations ``(Z'WZ + lambda) step = -gradient`` are solved by
conjugate gradients with the diagonal ``mean(W) S^2 + lambda`` as preconditioner: what is left for the
iterations is only how much ``W`` varies between samples, so a handful is enough whatever the spectrum of
the data.  One iteration is two matrix products for all problems together.  All in float64.

The objective is scikit-learn's: ``C * sum_i weight_i * loss_i + |w|^2 / 2``, intercept not penalised; more than
two classes: the symmetric multinomial loss.  The rotation is [own]; the test compares coefficients with
scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..errors import NumericalError


@dataclass(frozen=True)
class Span:
    """Training rows of one block, standardised and rotated into the coordinates of their own span.

    Attributes:
        z: ``[row, r]`` float64, rotated training rows; ``z.T @ z`` is diagonal.
        scatter: ``[r]``, that diagonal.
        back: matrices whose product Q ``[d, r]`` maps the coordinates to standardised features.
        mean, scale: ``[d]`` of the training rows.
    """

    z: torch.Tensor
    scatter: torch.Tensor
    back: tuple[torch.Tensor, ...]
    mean: torch.Tensor
    scale: torch.Tensor

    def lift(self, beta: torch.Tensor) -> torch.Tensor:
        """``Q beta``: from the rotated coordinates ``[problem, r]`` to standardised features ``[problem, d]``."""
        for matrix in reversed(self.back):
            beta = beta @ matrix.T
        return beta

    def lower(self, features: torch.Tensor) -> torch.Tensor:
        """``Q' features``: the transpose of :meth:`lift`."""
        for matrix in self.back:
            features = features @ matrix
        return features


@dataclass(frozen=True)
class Stretch:
    """Each problem's own standardisation on top of a span that all problems share.

    A fold divides features by the standard deviation of *its* training rows, not of all rows.  With
    ``e = variance of all rows / variance of the fold`` and weights ``diag(sqrt e) Q u``, the decision values are
    ``z S u``, the penalty is ``u' S u`` and the gradient, up to the factor S, is ``z'(...) + lambda u``, where
    ``S = Q' diag(e) Q``.  So the shared rotation stays exact for every fold, and only ``S u`` is new.  S is within
    ``size = max |e - 1|`` of the identity, and Newton's equations solved with the identity in its place
    converge by that factor a step.  [own]

    Attributes:
        span: the shared span; ratio: ``[mask, d]``, e of each mask; mask: ``[problem]``, mask of each problem.
    """

    span: Span
    ratio: torch.Tensor
    mask: torch.Tensor

    @property
    def size(self) -> float:
        """``max |e - 1|``."""
        return float((self.ratio - 1).abs().max())

    def lifted(self, beta: torch.Tensor, problems: torch.Tensor) -> torch.Tensor:
        """``diag(e) Q beta`` for ``beta [p, k, r]`` of the given problems, ``[p, k, d]``."""
        p, k, r = beta.shape
        return self.span.lift(beta.reshape(p * k, r)).reshape(p, k, -1) * self.ratio[self.mask[problems], None]

    def __call__(self, beta: torch.Tensor, problems: torch.Tensor) -> torch.Tensor:
        """``S beta`` for ``beta [p, k, r]`` of the given problems."""
        lifted = self.lifted(beta, problems)
        return self.span.lower(lifted.reshape(-1, lifted.shape[2])).reshape(beta.shape)

    def coefficients(self, beta: torch.Tensor, intercept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Coefficients ``[problem, class, d]`` and intercepts ``[problem, class]`` for raw features."""
        raw = self.lifted(beta, torch.arange(len(beta))) / self.span.scale
        return raw, intercept - raw @ self.span.mean


def span(rows: torch.Tensor, standardize: bool = True) -> Span:
    """Standardise (as scikit-learn's StandardScaler) and rotate training rows.

    Args:
        rows: ``[row, d]``; float32 or float64.
        standardize: divide by the standard deviation of each feature (a constant feature by 1); the mean is
            taken off in any case, which the free intercept makes harmless.
    """
    z = rows.to(torch.float64)
    n, d = z.shape
    mean = z.mean(0)
    z = z - mean
    scale = torch.ones(d, dtype=torch.float64)
    if standardize:
        scale = _scale(mean, (z * z).mean(0), n)
        z /= scale
    if n >= d:
        scatter, q = _eigh(z.T @ z)
        keep = _informative(scatter)
        q = q[:, keep]
        return Span(z @ q, scatter[keep], (q,), mean, scale)
    scatter, u = _eigh(_gram(z))
    keep = _informative(scatter)
    root = scatter[keep].sqrt()
    inverse = torch.where(root > 0, 1 / root, 0.0)  # rows that are all equal: one direction, with coefficient 0
    return Span(u[:, keep] * root, scatter[keep], (z.T, u[:, keep] * inverse), mean, scale)


def _scale(mean: torch.Tensor, variance: torch.Tensor, n: int) -> torch.Tensor:
    """Standard deviations, 1 for features that are constant up to rounding (scikit-learn's rule)."""
    eps = torch.finfo(torch.float64).eps
    constant = variance <= n * eps * variance + (n * mean * eps) ** 2
    return torch.where(constant, torch.ones_like(variance), variance.sqrt())


def span_scale(rows: np.ndarray) -> np.ndarray:
    """The scale ``[d]`` by which :func:`span` divides the features of these rows."""
    mean, variance = rows.mean(0, dtype=np.float64), rows.var(0, dtype=np.float64)
    return _scale(torch.from_numpy(mean), torch.from_numpy(variance), len(rows)).numpy()


def _gram(z: torch.Tensor) -> torch.Tensor:
    """``z @ z.T`` by the symmetric rank-k update, which does half the work of a general product."""
    from scipy.linalg.blas import dsyrk

    lower = torch.from_numpy(dsyrk(1.0, z.numpy().T, trans=1, lower=0).T)  # lower triangle, row-major
    return lower + torch.tril(lower, -1).T


def _eigh(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    try:
        return torch.linalg.eigh(matrix)
    except torch.linalg.LinAlgError as error:
        raise NumericalError(f"eigenvalues of the activations' scatter did not converge ({error})") from error


def _informative(scatter: torch.Tensor) -> torch.Tensor:
    """Directions above rounding error; none at all (all rows equal) keeps one, whose coefficient is 0."""
    keep = scatter > 1e-12 * scatter.max()
    if not keep.any():
        keep[-1] = True
        scatter[-1] = 0.0
    return keep & (scatter > 0) if (scatter > 0).any() else keep


def solve(
    data: Span,
    targets: torch.Tensor,
    penalty: torch.Tensor,
    weights: torch.Tensor | None = None,
    start: tuple[torch.Tensor, torch.Tensor] | None = None,
    stretch: Stretch | None = None,
    tolerance: float | torch.Tensor = 1e-5,
    max_iter: int = 100,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Solve all problems on one set of rows.

    Problems are the first axis everywhere: with few of them beside many rows, matrix products whose
    result has the long axis last are several times faster.

    Args:
        data: :func:`span` of the rows.
        targets: ``[problem, class, row]`` float64: one class of 0/1 for two classes, else one-hot.
        penalty: ``[problem]``, 1 / C.
        weights: ``[problem, row]`` sample weights, 0 for rows a problem must not see; ``None`` means 1.
        start: ``(beta, intercept)`` to start from, e.g. the solutions at a smaller C.
        stretch: each problem's own standardisation, ``None`` where it is that of the span.
        tolerance: of the estimated relative error of the coefficients, one or ``[problem]``.
        max_iter: Newton steps.

    Returns:
        ``beta [problem, class, r]`` in the rotated coordinates and ``intercept [problem, class]``.

    Raises:
        NumericalError: a problem that did not converge.
    """
    problems, classes, n = targets.shape
    weights = torch.ones(problems, n, dtype=torch.float64) if weights is None else weights
    if start is None:
        share = torch.einsum("pn,pkn->pk", weights, targets) / weights.sum(1, keepdim=True)
        share = share.clamp(1e-9, 1 - 1e-9)
        b_all = torch.log(share / (1 - share)) if classes == 1 else torch.log(share)
        beta_all = torch.zeros(problems, classes, data.z.shape[1], dtype=torch.float64)
    else:
        beta_all, b_all = start[0].clone(), start[1].clone()
    single = data.z.float()
    tolerances = torch.as_tensor(tolerance, dtype=torch.float64).expand(problems)
    active = torch.arange(problems)
    image_all = beta_all if stretch is None else stretch(beta_all, active)  # S beta
    for _ in range(max_iter):
        problem = _Problem(data.z, targets[active], weights[active, None], penalty[active])
        beta, image, b = beta_all[active], image_all[active], b_all[active]
        eta = problem.product(image) + b[..., None]
        step, step_b, gradient, gradient_b, inexact = _newton_step(
            problem, single, data.scatter, beta, eta, 1e-3 if stretch is None else 0.02
        )
        step_image = step if stretch is None else stretch(step, active)
        slope = (gradient * step_image).sum((1, 2)) + (gradient_b * step_b).sum(1)
        quadratic = [(x * y).sum((1, 2)) for x, y in ((beta, image), (beta, step_image), (step, step_image))]
        t, before = problem.backtrack(quadratic, eta, problem.product(step_image) + step_b[..., None], slope)
        beta_all[active] = beta + t[:, None, None] * step
        if stretch is not None:
            image_all[active] = image + t[:, None, None] * step_image
        b_all[active] = b + t[:, None] * step_b
        moved = _norm(step) * t / _norm(beta_all[active]).clamp(min=1e-300)
        # After a full step the error is what the inexact direction left, plus Newton's quadratic term.
        left = moved * (moved + inexact + (0.0 if stretch is None else stretch.size))
        done = ((t == 1) & (left <= tolerances[active])) | (slope.abs() <= 1e-20 * (1 + before.abs()))
        active = active[~done]
        if not len(active):
            return beta_all, b_all
    raise NumericalError(
        f"{len(active)} of {problems} logistic regressions did not converge in {max_iter} Newton steps; "
        f"regularise more (smaller C than {1 / float(penalty[active].min()):g})"
    )


def _norm(x: torch.Tensor) -> torch.Tensor:
    return torch.sqrt((x * x).sum((1, 2)))


@dataclass(frozen=True)
class _Problem:
    """The problems still being solved: data, targets ``y [p, k, n]``, weights ``w [p, 1, n]``, penalties ``[p]``."""

    z: torch.Tensor
    y: torch.Tensor
    w: torch.Tensor
    penalty: torch.Tensor

    def product(self, v: torch.Tensor) -> torch.Tensor:
        """``z v`` for ``v [p, k, r]``, as ``[p, k, n]``."""
        return (v.reshape(-1, v.shape[2]) @ self.z.T).reshape(self.y.shape)

    def backtrack(
        self, quadratic: list[torch.Tensor], eta: torch.Tensor, moved: torch.Tensor, slope: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Step lengths ``[p]`` that lower the exact objective, and its values before; elementwise work only."""
        bb, bx, xx = quadratic  # penalty of beta + t step: bb + 2 t bx + t^2 xx

        def objective(t: torch.Tensor) -> torch.Tensor:
            f = eta + t[:, None, None] * moved
            if f.shape[1] == 1:
                loss = torch.nn.functional.softplus(f) - self.y * f
            else:
                loss = torch.logsumexp(f, 1, keepdim=True) - (self.y * f).sum(1, keepdim=True)
            return (self.w * loss).sum((1, 2)) + 0.5 * self.penalty * (bb + 2 * t * bx + t * t * xx)

        t = torch.ones_like(self.penalty)
        start = objective(torch.zeros_like(t))
        for _ in range(40):
            bad = objective(t) > start + 1e-4 * t * slope + 1e-10 * start.abs()
            if not bool(bad.any()):
                break
            t = torch.where(bad, t / 2, t)
        return t, start


def _newton_step(
    problem: _Problem,
    single: torch.Tensor,
    scatter: torch.Tensor,
    beta: torch.Tensor,
    eta: torch.Tensor,
    finest: float,
) -> tuple[torch.Tensor, ...]:
    """One truncated Newton direction for all problems.

    The gradient is float64; the direction itself, of which three digits are used, is sought in float32.

    Returns:
        ``step [p, k, r]``, ``step_b [p, k]``, their gradients, and ``inexact [p]``, the relative residual left by
        the conjugate gradients (asked for no finer than ``finest``).
    """
    y, w, penalty = problem.y, problem.w, problem.penalty
    p, k, n = y.shape
    prob = torch.sigmoid(eta) if k == 1 else torch.softmax(eta, 1)
    residual = w * (prob - y)
    gradient = (residual.reshape(-1, n) @ problem.z).reshape(beta.shape) + penalty[:, None, None] * beta
    gradient_b = residual.sum(2)
    curvature = w * prob * (1 - prob)
    diagonal = scatter * curvature.mean(2, keepdim=True) + penalty[:, None, None]
    diagonal_b = curvature.sum(2) + 1e-12
    rough = _norm(gradient / diagonal) / _norm(beta).clamp(min=1e-300)
    goal = torch.clamp(0.3 * rough, finest, 0.1).float()  # the first directions need not be exact
    # Scaled to size one, so that float32 neither under- nor overflows.
    unit = torch.sqrt((gradient**2 / diagonal).sum((1, 2)) + (gradient_b**2 / diagonal_b).sum(1)).clamp(min=1e-300)
    res, res_b = (-gradient / unit[:, None, None]).float(), (-gradient_b / unit[:, None]).float()
    inverse, inverse_b = (1 / diagonal).float(), (1 / diagonal_b).float()
    prob32, curvature32, penalty32 = prob.float(), curvature.float(), penalty.float()[:, None, None]
    weighted = (w * prob).float()
    x, xb = torch.zeros_like(res), torch.zeros_like(res_b)
    d, db = res * inverse, res_b * inverse_b
    rho = (res * d).sum((1, 2)) + (res_b * db).sum(1)
    first = rho
    for _ in range(300):
        f = (d.reshape(p * k, -1) @ single.T).reshape(p, k, n) + db[..., None]
        h = curvature32 * f if k == 1 else weighted * (f - (prob32 * f).sum(1, keepdim=True))
        hd = (h.reshape(p * k, n) @ single).reshape(d.shape) + penalty32 * d
        hb = h.sum(2)
        along = (d * hd).sum((1, 2)) + (db * hb).sum(1)
        alpha = torch.where(along > 0, rho / along.clamp(min=1e-30), torch.zeros_like(rho))
        x, xb = x + alpha[:, None, None] * d, xb + alpha[:, None] * db
        res, res_b = res - alpha[:, None, None] * hd, res_b - alpha[:, None] * hb
        pre, pre_b = res * inverse, res_b * inverse_b
        new = (res * pre).sum((1, 2)) + (res_b * pre_b).sum(1)
        if bool((new <= goal**2 * first).all()):
            break
        ratio = torch.where(rho > 0, new / rho.clamp(min=1e-30), torch.zeros_like(rho))
        d, db, rho = pre + ratio[:, None, None] * d, pre_b + ratio[:, None] * db, new
    step, step_b = x.double() * unit[:, None, None], xb.double() * unit[:, None]
    inexact = torch.sqrt(new / first.clamp(min=1e-30)).double()
    return step, step_b, gradient, gradient_b, inexact


def balanced_weights(codes: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """scikit-learn's ``class_weight='balanced'``: ``[problem, row]`` codes to weights, 0 outside the mask."""
    out = np.zeros(codes.shape)
    for problem, row in enumerate(codes):
        values, at, counts = np.unique(row[mask], return_inverse=True, return_counts=True)
        out[problem, mask] = (mask.sum() / (len(values) * counts))[at.reshape(-1)]
    return out

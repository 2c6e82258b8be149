"""Inverses and log-determinants of many small matrices at once, by operations that a CUDA graph can hold."""

import torch
from torch import Tensor
from torch.nn import functional as F


def inverses_and_log_dets(matrices: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The inverse and log abs det of each matrix, computed in float64 and returned in the matrix's dtype.

    ``torch.linalg`` calls cuSOLVER once for each matrix and waits for the GPU each time, which also forbids a graph.

    Args:
        matrices: (n, n) each, of any sizes.

    Returns:
        (inverse (n, n), log abs det ()) of each.
    """
    size = max(len(matrix) for matrix in matrices)
    # A 1 on the diagonal changes neither the inverse of the rest nor the determinant.
    padded = [F.pad(matrix.double(), (0, size - len(matrix)) * 2) for matrix in matrices]
    ones = torch.stack([torch.arange(size, device=m.device) >= len(m) for m in matrices]).double()
    inverse, log_det = _InverseAndLogDet.apply(torch.stack(padded) + torch.diag_embed(ones))
    return [(inverse[k, : len(m), : len(m)].to(m.dtype), log_det[k].to(m.dtype)) for k, m in enumerate(matrices)]


class _InverseAndLogDet(torch.autograd.Function):
    """Gauss-Jordan elimination with partial pivoting, in n turns whatever the numbers are."""

    @staticmethod
    def forward(ctx, matrices: Tensor) -> tuple[Tensor, Tensor]:
        """``matrices`` (B, n, n) -> inverses (B, n, n) and log abs det (B,)."""
        count, size, _ = matrices.shape
        eye = torch.eye(size, dtype=matrices.dtype, device=matrices.device)
        rows = torch.cat([matrices, eye.expand_as(matrices)], 2)
        log_det = matrices.new_zeros(count)
        for k in range(size):
            rows = _pivot_to(rows, k)
            pivot = rows[:, k, k, None]
            log_det = log_det + pivot[:, 0].abs().log()
            row = rows[:, k] / pivot
            column = rows[:, :, k].clone()
            column[:, k] -= 1  # so that the pivot's own row becomes ``row``
            rows = rows - column[:, :, None] * row[:, None]
        inverse = rows[:, :, size:]
        ctx.save_for_backward(inverse)
        return inverse, log_det

    @staticmethod
    def backward(ctx, inverse_grad: Tensor, log_det_grad: Tensor) -> Tensor:
        (inverse,) = ctx.saved_tensors
        return log_det_grad[:, None, None] * inverse.mT - inverse.mT @ inverse_grad @ inverse.mT


def _pivot_to(rows: Tensor, k: int) -> Tensor:
    """Exchange row k of each of ``rows`` (B, n, m) with the one from k on whose element k is largest."""
    count, size, width = rows.shape
    largest = rows[:, k:, k].abs().argmax(1, keepdim=True) + k  # (B, 1)
    order = torch.arange(size, device=rows.device).repeat(count, 1)
    order = order.scatter(1, largest, k)
    order[:, k] = largest[:, 0]
    return rows.gather(1, order[:, :, None].expand(-1, -1, width))

"""The output layer where every attack has its own, attack by attack; and of one attack alone, a product.

The matrix is read from memory once in each pass, and from the cache for the second product. ``matrices`` are
(B, K, M), ``biases`` (B, K).
"""

from __future__ import annotations

import numpy as np

from wdlg.compiled import compile_loops

BLOCK = 512
"""Terms that oneDNN adds up before it adds them to the sum."""


@compile_loops
def errors(features, matrices, biases, target, probabilities, error, upstream):  # type: ignore[no-untyped-def]
    """``softmax(V f + c)``, this less the target, and the latter times V."""
    for b in range(len(features)):
        p = probabilities[b]
        np.dot(matrices[b], features[b], p)
        largest = p[0] + biases[b, 0]
        for k in range(len(p)):
            p[k] += biases[b, k]
            largest = max(largest, p[k])
        total = largest * 0
        for k in range(len(p)):
            p[k] = np.exp(p[k] - largest)
            total += p[k]
        for k in range(len(p)):
            p[k] /= total
            error[b, k] = p[k] - target[b, k]
        np.dot(matrices[b].T, error[b], upstream[b])


@compile_loops
def errors_back(upstream_bar, error_bar, probabilities, matrices, features_bar):  # type: ignore[no-untyped-def]
    """Its derivative: add to ``error_bar`` what comes by U, and to ``features_bar`` what comes of both."""
    logits_bar, more = np.empty_like(error_bar[0]), np.empty_like(features_bar[0])
    for b in range(len(error_bar)):
        p, e = probabilities[b], error_bar[b]
        np.dot(matrices[b], upstream_bar[b], logits_bar)
        mean = p[0] * 0
        for k in range(len(p)):
            e[k] += logits_bar[k]
            mean += p[k] * e[k]
        for k in range(len(p)):
            logits_bar[k] = p[k] * (e[k] - mean)
        np.dot(matrices[b].T, logits_bar, more)
        for i in range(len(more)):
            features_bar[b, i] += more[i]


@compile_loops
def product(row, matrix, out):  # type: ignore[no-untyped-def]
    """A row (n,) times a matrix (n, m), without the calls and copies that a library's product begins with.

    The order of the sums is that of oneDNN for one row: number after number, in blocks of :data:`BLOCK` that
    are added up.
    """
    part = np.empty_like(out)
    out[:] = 0
    for start in range(0, len(row), BLOCK):
        part[:] = 0
        for i in range(start, min(start + BLOCK, len(row))):
            factor = row[i]
            for j in range(len(part)):
                part[j] += factor * matrix[i, j]
        for j in range(len(part)):
            out[j] += part[j]

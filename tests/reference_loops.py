"""Naive scalar loops, straight from the definitions. Slow on purpose: nobody optimises them, so they stay correct.

Images are (N, H, W, C) and weights (KH, KW, I, O), as in the kernels; every sum is a Python float (float64).
"""

import itertools
import math

import numpy as np


def out_length(n, k, s, p, d=1):
    """The number of windows that fit."""
    count = 0
    while -p + count * s + d * (k - 1) < n + p:
        count += 1
    return count


def _out_size(size, kernel, stride, padding, dilation):
    return [out_length(*each) for each in zip(size, kernel, stride, padding, dilation)]


def conv_terms(x_shape, w_shape, stride, padding, dilation, groups):
    """Every product of a convolution, as its indices into y, x and w. All three kernels are sums over these."""
    N, H, W, _ = x_shape
    KH, KW, I, O = w_shape
    OH, OW = _out_size((H, W), (KH, KW), stride, padding, dilation)
    for n, oh, ow, o in itertools.product(range(N), range(OH), range(OW), range(O)):
        group = o // (O // groups)
        for kh, kw, i in itertools.product(range(KH), range(KW), range(I)):
            h = oh * stride[0] - padding[0] + kh * dilation[0]
            w = ow * stride[1] - padding[1] + kw * dilation[1]
            if 0 <= h < H and 0 <= w < W:
                yield (n, oh, ow, o), (n, h, w, group * I + i), (kh, kw, i, o)


def conv2d(x, w, stride, padding, dilation, groups):
    size = _out_size(x.shape[1:3], w.shape[:2], stride, padding, dilation)
    y = np.zeros((x.shape[0], *size, w.shape[3]))
    for at_y, at_x, at_w in conv_terms(x.shape, w.shape, stride, padding, dilation, groups):
        y[at_y] += float(x[at_x]) * float(w[at_w])
    return y


def conv2d_input_grad(dy, w, x_shape, stride, padding, dilation, groups):
    dx = np.zeros(x_shape)
    for at_y, at_x, at_w in conv_terms(x_shape, w.shape, stride, padding, dilation, groups):
        dx[at_x] += float(dy[at_y]) * float(w[at_w])
    return dx


def conv2d_weight_grad(x, dy, w_shape, stride, padding, dilation, groups):
    dw = np.zeros(w_shape)
    for at_y, at_x, at_w in conv_terms(x.shape, w_shape, stride, padding, dilation, groups):
        dw[at_w] += float(dy[at_y]) * float(x[at_x])
    return dw


def windows(x_shape, kernel, stride, padding, dilation):
    """Every window: (its output (n, oh, ow, c), [the (h, w) inside the image that it sees, in row-major order])."""
    N, H, W, C = x_shape
    OH, OW = _out_size((H, W), kernel, stride, padding, dilation)
    for n, oh, ow, c in itertools.product(range(N), range(OH), range(OW), range(C)):
        seen = []
        for kh, kw in itertools.product(range(kernel[0]), range(kernel[1])):
            h = oh * stride[0] - padding[0] + kh * dilation[0]
            w = ow * stride[1] - padding[1] + kw * dilation[1]
            if 0 <= h < H and 0 <= w < W:
                seen.append((h, w))
        yield (n, oh, ow, c), seen


def max_pool2d(x, kernel, stride, padding, dilation):
    """y and the position h·W + w of each maximum: the first of equal elements, or the last NaN."""
    N, H, W, C = x.shape
    y = np.zeros((N, *_out_size((H, W), kernel, stride, padding, dilation), C))
    index = np.zeros(y.shape, np.int64)
    for at, seen in windows(x.shape, kernel, stride, padding, dilation):
        n, _, _, c = at
        best, where = None, None
        for h, w in seen:
            value = float(x[n, h, w, c])
            if best is None or value > best or math.isnan(value):
                best, where = value, h * W + w
        y[at], index[at] = best, where
    return y, index


def max_pool2d_grad(dy, index, x_shape):
    dx = np.zeros(x_shape)
    for n, oh, ow, c in np.ndindex(dy.shape):
        h, w = divmod(int(index[n, oh, ow, c]), x_shape[2])
        dx[n, h, w, c] += float(dy[n, oh, ow, c])
    return dx


def _divisor(at, seen, kernel, stride, padding, size, count_padding):
    """The number of the window's pixels in the image, or in the image and its padding."""
    if not count_padding:
        return len(seen)
    counts = []
    for o, k, s, p, n in zip(at[1:3], kernel, stride, padding, size):
        counts.append(sum(1 for place in range(o * s - p, o * s - p + k) if -p <= place < n + p))
    return counts[0] * counts[1]


def avg_pool2d(x, kernel, stride, padding, count_padding):
    N, H, W, C = x.shape
    y = np.zeros((N, *_out_size((H, W), kernel, stride, padding, (1, 1)), C))
    for at, seen in windows(x.shape, kernel, stride, padding, (1, 1)):
        total = sum(float(x[at[0], h, w, at[3]]) for h, w in seen)
        y[at] = total / _divisor(at, seen, kernel, stride, padding, (H, W), count_padding)
    return y


def avg_pool2d_grad(dy, x_shape, kernel, stride, padding, count_padding):
    dx = np.zeros(x_shape)
    for at, seen in windows(x_shape, kernel, stride, padding, (1, 1)):
        share = float(dy[at]) / _divisor(at, seen, kernel, stride, padding, x_shape[1:3], count_padding)
        for h, w in seen:
            dx[at[0], h, w, at[3]] += share
    return dx


def batch_norm_stats(x):
    """Mean and biased variance of each channel of x (…, C), by the two-pass definition."""
    rows = x.reshape(-1, x.shape[-1])
    mean, var = [], []
    for c in range(rows.shape[1]):
        column = [float(v) for v in rows[:, c]]
        m = math.fsum(column) / len(column)
        mean.append(m)
        var.append(math.fsum((v - m) ** 2 for v in column) / len(column))
    return np.array(mean), np.array(var)


def batch_norm(x, mean, scale, shift):
    y = np.zeros(x.shape)
    for at in np.ndindex(x.shape):
        c = at[-1]
        y[at] = (float(x[at]) - float(mean[c])) * float(scale[c]) + float(shift[c])
    return y


def batch_norm_grad(dy, x, mean, inv_std, weight, training):
    """By the chain rule through mean and variance, term by term as in Ioffe & Szegedy 2015, section 3."""
    C = x.shape[-1]
    M = x.size // C
    dx, dweight, dbias = np.zeros(x.shape), np.zeros(C), np.zeros(C)
    for c in range(C):
        xs, gs = [float(v) for v in x[..., c].ravel()], [float(v) for v in dy[..., c].ravel()]
        m, s, w = float(mean[c]), float(inv_std[c]), float(weight[c])
        dbias[c] = math.fsum(gs)
        dweight[c] = math.fsum(g * (v - m) * s for g, v in zip(gs, xs))
        dvar = dmean = 0.0
        if training:
            dvar = math.fsum(g * w * (v - m) for g, v in zip(gs, xs)) * -0.5 * s**3
            dmean = -math.fsum(g * w for g in gs) * s + dvar * math.fsum(-2 * (v - m) for v in xs) / M
        out = [g * w * s + dvar * 2 * (v - m) / M + dmean / M for g, v in zip(gs, xs)]
        dx[..., c] = np.array(out).reshape(x.shape[:-1])
    return dx, dweight, dbias


def matmul(a, b):
    """(M, K)·(K, N)."""
    c = np.zeros((a.shape[0], b.shape[1]))
    for i, j in np.ndindex(c.shape):
        c[i, j] = math.fsum(float(a[i, k]) * float(b[k, j]) for k in range(a.shape[1]))
    return c


def cross_entropy(logits, labels, smoothing):
    """Losses (N,) and probabilities (N, K)."""
    N, K = logits.shape
    losses, p = np.zeros(N), np.zeros((N, K))
    for n in range(N):
        top = max(float(v) for v in logits[n])
        e = [math.exp(float(v) - top) for v in logits[n]]
        for k in range(K):
            p[n, k] = e[k] / math.fsum(e)
            q = smoothing / K + (1 - smoothing if k == labels[n] else 0)
            losses[n] -= q * (float(logits[n, k]) - top - math.log(math.fsum(e)))
    return losses, p


def cross_entropy_grad(p, labels, smoothing, dlosses):
    d = np.zeros(p.shape)
    for n, k in np.ndindex(p.shape):
        q = smoothing / p.shape[1] + (1 - smoothing if k == labels[n] else 0)
        d[n, k] = (float(p[n, k]) - q) * float(dlosses[n])
    return d


def sgd_step(param, grad, velocity, lr, momentum, weight_decay, nesterov):
    """New parameter and velocity, by the update rule of torch.optim.SGD (dampening 0)."""
    param, velocity = param.astype(np.float64), velocity.astype(np.float64)
    for at in np.ndindex(param.shape):
        g = float(grad[at]) + weight_decay * param[at]
        velocity[at] = momentum * velocity[at] + g
        param[at] -= lr * (g + momentum * velocity[at] if nesterov else velocity[at])
    return param, velocity

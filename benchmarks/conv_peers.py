"""One convolution by itself, forward and both gradients, through minires' kernels and through PyTorch's."""

import numpy as np

from .cases import LAST, MINIRES, NCHW


def arrays(conv):
    """x (N, C, H, W), w (O, C, K, K), dy (N, O, OH, OW), float32."""
    rng = np.random.default_rng(2)
    shapes = (
        (conv.batch, conv.inputs, conv.size, conv.size),
        (conv.outputs, conv.inputs, conv.kernel, conv.kernel),
        (conv.batch, conv.outputs, conv.out_size, conv.out_size),
    )
    return [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]


def minires(threads):
    import minires as mr
    from minires import kernels

    mr.set_num_threads(threads)

    def work_of(conv, use):
        x, w, dy = arrays(conv)
        x, dy = (np.ascontiguousarray(a.transpose(0, 2, 3, 1)) for a in (x, dy))  # channels-last, as kernels take them
        w = np.ascontiguousarray(w.transpose(2, 3, 1, 0))
        rest = (conv.stride,) * 2, (conv.padding,) * 2, (1, 1), 1
        return {
            "forward": lambda: kernels.conv2d(x, w, *rest),
            "input gradient": lambda: kernels.conv2d_input_grad(dy, w, x.shape, *rest),
            "weight gradient": lambda: kernels.conv2d_weight_grad(x, dy, w.shape, *rest),
        }[use]

    return work_of


def torch(threads, channels_last=False):
    import torch

    torch.set_num_threads(threads)
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def work_of(conv, use):
        x, w, dy = (torch.from_numpy(a).contiguous(memory_format=layout) for a in arrays(conv))
        stride, padding = (conv.stride,) * 2, (conv.padding,) * 2
        mask = [use == "input gradient", use == "weight gradient", False]

        def forward():
            with torch.no_grad():
                return torch.conv2d(x, w, None, stride, padding)

        def backward():
            return torch.ops.aten.convolution_backward(dy, x, w, None, stride, padding, (1, 1), False, (0, 0), 1, mask)[
                mask.index(True)
            ]

        return forward if use == "forward" else backward

    return work_of


PEERS = {
    MINIRES: minires,
    NCHW: torch,
    LAST: lambda threads: torch(threads, channels_last=True),
}


def build(name, threads):
    """The peer of that name: a function from a Conv and one of its uses to the work, which returns the result."""
    return PEERS[name](threads)

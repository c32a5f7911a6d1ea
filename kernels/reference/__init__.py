"""The ``reference`` back end: every function of ``kernels.FUNCTIONS``, in plain NumPy, written to be read."""

from .augment import augment_batch
from .channels import concat_channels, split_channels
from .conv import conv2d, conv2d_input_grad, conv2d_weight_grad
from .elementwise import add, add_relu, relu, relu_grad
from .finite import not_finite
from .fusion import norm_backward_terms, norm_fixed_terms, norm_forward_terms, pointwise, values
from .linear import matmul
from .loss import cross_entropy, cross_entropy_grad
from .normalization import batch_norm, batch_norm_grad, batch_norm_stats, update_running_stats
from .pool import avg_pool2d, avg_pool2d_grad, max_pool2d, max_pool2d_grad
from .resize import resize, resize_grad
from .sgd import sgd_step
from .shortcut import zero_pad_shortcut, zero_pad_shortcut_grad

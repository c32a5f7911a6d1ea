"""The ``numba`` back end: every function of ``kernels.FUNCTIONS``, compiled. Its readable counterpart is ``reference/``."""

from ..convolution.dispatch import conv2d, conv2d_input_grad, conv2d_weight_grad
from ..convolution.norm_terms import norm_backward_terms, norm_fixed_terms, norm_forward_terms, update_running_stats
from ..convolution.pointwise import pointwise, values
from .augment import augment_batch
from .channels import concat_channels, split_channels
from .elementwise import add, add_relu, relu, relu_grad
from .finite import not_finite
from .linear import matmul
from .loss import cross_entropy, cross_entropy_grad
from .normalization import batch_norm, batch_norm_grad, batch_norm_stats
from .pool import avg_pool2d, avg_pool2d_grad, max_pool2d, max_pool2d_grad
from .resize import resize, resize_grad
from .sgd import sgd_step
from .shortcut import zero_pad_shortcut, zero_pad_shortcut_grad

"""Recorded predictions: the bits of ``model(x)`` under ``no_grad``, whatever happens to the weights."""

import os
import threading

import numpy as np
import pytest
from recorded_twins import RUNS, bits, images, labels, make

import minires as mr
from minires import RecordedPrediction, nn
from minires import functional as F
from minires.models.blocks import BasicBlock, PreActBottleneck
from minires.models.resnet_cifar import CifarPreResNet, CifarResNet
from minires.models.resnet_imagenet import ResNet, ResNetV2


def plain(model, x):
    with mr.no_grad():
        return model(mr.Tensor(x)).data


def trained(network=lambda: CifarResNet(8)):
    """A model in evaluation mode whose running statistics are not those it began with."""
    model, optimizer = make(network)
    for i in range(2):
        F.cross_entropy(model(mr.Tensor(images(i))), labels(i)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.mark.parametrize(
    "network",
    [
        lambda: CifarResNet(8),
        lambda: CifarResNet(8, option="B"),
        lambda: CifarPreResNet(8),
        lambda: CifarPreResNet(11, block=PreActBottleneck),
        lambda: ResNet(BasicBlock, depths=(1, 1, 1, 1), num_classes=10),
        lambda: ResNetV2(depths=(1, 1, 1, 1), num_classes=10),
    ],
    ids=["resnet8", "resnet8 B", "pre-activation", "bottleneck", "imagenet", "v2"],
)
@pytest.mark.parametrize("batch", [1, 5])
def test_predictions_have_the_same_bits(network, batch):
    model = trained(network)
    predict = RecordedPrediction(model)
    kept = []
    for i in range(5):
        y = predict(images(i, batch))
        kept.append((y, plain(model, images(i, batch))))
        assert predict.state == RUNS[i]
        assert not y.requires_grad
    for y, expected in kept:
        assert bits([y.data]) == bits([expected])


def optimizer_step(model):
    optimizer = mr.optim.SGD(model.parameters(), 0.5)
    F.cross_entropy(model(mr.Tensor(images(0))), labels(0)).backward()
    optimizer.step()


def half(model):
    model.load_state_dict({name: value * 0.5 for name, value in model.state_dict().items()})


def training_between(model):
    model.train()
    F.cross_entropy(model(mr.Tensor(images(5))), labels(5))
    model.eval()


def new_buffer(model):
    model.bn1.running_var = model.bn1.running_var * 3


@pytest.mark.parametrize("change", [optimizer_step, half, training_between, new_buffer], ids=lambda f: f.__name__)
def test_predictions_follow_the_weights(change):
    model = trained()
    predict = RecordedPrediction(model)
    for i in range(4):
        predict(images(i))
    before = predict(images(0)).data
    change(model)
    for i in range(4):
        assert bits([predict(images(i)).data]) == bits([plain(model, images(i))])
    assert bits([before]) != bits([predict(images(0)).data])


def follows(model):
    """A recorded prediction of a model whose weights changed after it was recorded; it gave those of the new ones."""
    predict = RecordedPrediction(model)
    for i in range(4):
        predict(images(i))
    assert predict.state == "checked"
    for i in range(3):
        half(model)
        assert bits([predict(images(i)).data]) == bits([plain(model, images(i))])
    return predict


@pytest.mark.parametrize("winograd", [True, False])
@pytest.mark.parametrize("groups", [1, 4, 16])
def test_predictions_follow_weights_in_another_memory_order(groups, winograd):
    """Those that ``.data =`` has set as PyTorch stores them: they are copied, and the copy is packed."""
    conv = nn.Conv2d(16, 32, 3, padding=1, groups=groups, bias=False)
    conv.weight.data = np.ascontiguousarray(conv.weight.data)
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), conv).eval()
    with mr.winograd(winograd):
        assert follows(model).state == "checked"


def test_weights_that_a_module_computes_are_those_of_now():
    """What is packed of them is computed ahead, before they are: that is noticed when the weights change."""

    class Standardised(nn.Conv2d):
        recordable = True

        def forward(self, x):
            return F.conv2d(x, (self.weight - self.weight.mean((1, 2, 3), keepdims=True)) * 2.0, padding=1)

    class Doubled(nn.Linear):
        recordable = True

        def forward(self, x):
            return F.linear(x, self.weight * 2.0, self.bias)

    for layer in (
        Standardised(3, 8, 3, bias=False),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), Doubled(3, 4)),
    ):
        model = nn.Sequential(layer).eval()
        assert follows(model).state == "refused"


def test_a_change_of_the_weights_is_compared_once():
    model = trained()
    predict = RecordedPrediction(model)
    for i in range(4):
        predict(images(i))
    compared = []
    predict._check, check = lambda *args: compared.append(args) or check(*args), predict._check
    for i in range(3):
        half(model)
        predict(images(i))
    assert (len(compared), predict.state) == (1, "checked")


def test_refresh_sees_what_numpy_has_written():
    model = trained()
    predict = RecordedPrediction(model)
    for i in range(4):
        predict(images(i))
    model.conv1.weight.data[...] *= 1.5
    model.bn1.running_mean[...] += 1
    predict.refresh()
    assert bits([predict(images(0)).data]) == bits([plain(model, images(0))])


def test_threads_may_share_a_prediction():
    model = trained()
    predict = RecordedPrediction(model)
    expected = [plain(model, images(i)).tobytes() for i in range(4)]
    wrong = []

    def work(i):
        for _ in range(30):
            if predict(images(i)).data.tobytes() != expected[i]:
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_a_model_in_training_mode_is_not_recorded():
    model = trained().train()
    predict = RecordedPrediction(model)
    for i in range(4):
        predict(images(i))
    assert predict.state == "waiting"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # of JAX, where other tests have imported it
def test_a_forked_process_can_go_on():
    model = trained()
    predict = RecordedPrediction(model)
    for i in range(4):
        predict(images(i))
    expected = plain(model, images(9)).tobytes()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if predict(images(9)).data.tobytes() == expected else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert predict(images(9)).data.tobytes() == expected


def test_the_check_needs_no_memory_that_the_recording_keeps():
    predict = RecordedPrediction(trained(lambda: ResNet(BasicBlock, depths=(1, 1, 1, 1), num_classes=10)))
    for i in range(2):
        predict(images(i))
    needed = predict._recording.pool.most_used
    for i in range(3):
        predict(images(i))
    assert predict.state == "checked"
    assert predict._recording.pool.most_used == needed

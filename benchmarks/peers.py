"""What each peer does when its turn comes: a training step, or inference, of one network on one batch.

A builder takes a Case and the number of threads and returns (step, parameters): ``step()`` does the work once and returns
the loss, or the logits as an ndarray. A library that is not installed raises ImportError.
"""

import io
import subprocess
import tempfile

import numpy as np

from .cases import COMPILE, COMPILE_LAST, FROZEN, JAX, LAST, MINIRES, NCHW, NCNN, NUMPY, ONNX, OPENVINO

SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}


def data(case):
    """Random images (N, 3, H, W) and labels, the same for every peer."""
    rng = np.random.default_rng(1)
    images = rng.standard_normal((case.batch, 3, case.size, case.size), dtype=np.float32)
    return images, rng.integers(0, case.classes, case.batch)


# --- minires


def minires_network(case, threads, weights=None):
    import minires as mr

    mr.set_num_threads(threads)
    mr.manual_seed(0)
    net = mr.models.create(case.model)
    if weights:
        net.load_state_dict(weights)
    return net, sum(p.data.size for p in net.parameters())


def minires_train(case, threads, weights=None):
    """Forward, cross-entropy, backward, SGD with momentum and weight decay; from a recording, as the Trainer does it."""
    import minires as mr

    net, parameters = minires_network(case, threads, weights)
    optimizer = mr.optim.SGD(net.parameters(), **SGD)
    images, labels = data(case)
    gradients = mr.RecordedStep(net)

    def step():
        loss, _ = gradients(images, labels)
        optimizer.step()
        return loss.item()

    return step, parameters


def minires_inference(case, threads, weights=None):
    import minires as mr

    net, parameters = minires_network(case, threads, weights)
    net.eval()
    images = mr.tensor(data(case)[0])
    predict = mr.RecordedPrediction(net)

    def step():
        return predict(images).numpy()

    return step, parameters


def numpy_train(case, threads, weights=None):
    """The same step on the reference back end: im2col written out, and NumPy's BLAS."""
    import minires as mr

    step, parameters = minires_train(case, threads, weights)

    def reference_step():
        with mr.backend("reference"):
            return step()

    return reference_step, parameters


# --- PyTorch


def torch_network(case, threads, channels_last, weights):
    import torch

    from .torch_models import create

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    net = create(case.model)
    if weights:
        net.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
    images, labels = map(torch.from_numpy, data(case))
    if channels_last:
        net, images = net.to(memory_format=torch.channels_last), images.contiguous(memory_format=torch.channels_last)
    return torch, net, images, labels, sum(p.numel() for p in net.parameters())


def torch_train(case, threads, weights=None, channels_last=False, compiled=False):
    torch, net, images, labels, parameters = torch_network(case, threads, channels_last, weights)
    run = torch.compile(net) if compiled else net
    optimizer = torch.optim.SGD(net.parameters(), **SGD)

    def step():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(run(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step, parameters


def torch_inference(case, threads, weights=None, channels_last=False, compiled=False, frozen=False):
    """``frozen`` lets the compiler take the weights for constants: it folds batch norms and reorders weights ahead."""
    torch, net, images, _, parameters = torch_network(case, threads, channels_last, weights)
    net.eval()
    if frozen:
        import torch._inductor.config

        torch._inductor.config.freezing = True
    run = torch.compile(net) if compiled or frozen else net
    without_tape = torch.no_grad if frozen else torch.inference_mode  # freezing is made for no_grad

    def step():
        with without_tape():
            return run(images).numpy()

    return step, parameters


# --- Inference engines


def onnx_network(case, threads, weights):
    """(ONNX file in memory, images (N, 3, H, W), parameters): the PyTorch network, exported for this batch size."""
    import onnx  # noqa: F401  (the exporter wants it, and says so in more words)

    torch, net, images, _, parameters = torch_network(case, threads, False, weights)
    file = io.BytesIO()
    torch.onnx.export(net.eval(), (images,), file, input_names=["images"], output_names=["logits"], dynamo=False)
    file.seek(0)
    return file, images.numpy(), parameters


def onnx_inference(case, threads, weights=None):
    import onnxruntime

    file, images, parameters = onnx_network(case, threads, weights)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    feed = {"images": images}
    return lambda: session.run(["logits"], feed)[0], parameters


def openvino_inference(case, threads, weights=None):
    """From the same file. Where the CPU has bfloat16, OpenVINO would use it: float32 has to be asked for."""
    import openvino

    file, images, parameters = onnx_network(case, threads, weights)
    options = {
        "PERFORMANCE_HINT": "LATENCY",  # one batch at a time, on all threads
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    core = openvino.Core()
    request = core.compile_model(core.read_model(file), "CPU", options).create_infer_request()
    return lambda: request.infer([images], share_inputs=True)[0], parameters


def ncnn_inference(case, threads, weights=None):
    """The PyTorch network, traced and converted by pnnx. ncnn takes one image at a time."""
    import ncnn

    net, parameters, images = ncnn_network(case, threads, weights)
    images = [ncnn.Mat(image).clone() for image in images]  # a Mat alone does not keep the array alive

    def logits(image):
        extractor = net.create_extractor()
        extractor.input("in0", image)
        return np.array(extractor.extract("out0")[1])

    return lambda: np.stack([logits(image) for image in images]), parameters


def ncnn_network(case, threads, weights):
    """(ncnn.Net in float32, parameters, images)."""
    import ncnn
    import pnnx

    from .torch_models import without_slices

    torch, original, images, _, parameters = torch_network(case, threads, False, weights)
    with tempfile.TemporaryDirectory() as folder:
        torch.jit.trace(without_slices(original.eval()), images[:1]).save(f"{folder}/net.pt")
        subprocess.run([pnnx.EXEC_PATH, "net.pt", "fp16=0"], cwd=folder, stdout=subprocess.DEVNULL, check=True)
        net = ncnn.Net()
        net.opt.num_threads = threads
        for name in ("fp16_storage", "fp16_arithmetic", "fp16_packed", "bf16_storage", "bf16_packed"):
            setattr(net.opt, f"use_{name}", False)
        if net.load_param(f"{folder}/net.ncnn.param") or net.load_model(f"{folder}/net.ncnn.bin"):
            raise RuntimeError(f"ncnn cannot load {case.model} as pnnx converts it")
    return net, parameters, images.numpy()


def jax_train(case, threads, weights=None):
    from .jax_resnet import train_step

    return train_step(case, data(case), weights, **SGD)


TRAIN = {
    MINIRES: (minires_train, {}),
    NCHW: (torch_train, {}),
    LAST: (torch_train, {"channels_last": True}),
    COMPILE: (torch_train, {"compiled": True}),
    COMPILE_LAST: (torch_train, {"compiled": True, "channels_last": True}),
    NUMPY: (numpy_train, {}),
    JAX: (jax_train, {}),
}
INFERENCE = {
    MINIRES: (minires_inference, {}),
    NCHW: (torch_inference, {}),
    LAST: (torch_inference, {"channels_last": True}),
    COMPILE: (torch_inference, {"compiled": True}),
    FROZEN: (torch_inference, {"frozen": True}),
    ONNX: (onnx_inference, {}),
    OPENVINO: (openvino_inference, {}),
    NCNN: (ncnn_inference, {}),
}


def build(job, name, case, threads, weights=None):
    """(step, parameters) of a job, ``train`` or ``inference``, for the peer of that name."""
    builder, options = {"train": TRAIN, "inference": INFERENCE}[job][name]
    return builder(case, threads, weights, **options)

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minires.errors import DataError
from minires.training import Checkpoint


def example():
    weight = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)  # not in C order
    model = {"conv1.weight": weight, "bn1.num_batches_tracked": np.array(7), "fc.bias": np.arange(3.0)}
    optimizer = {
        "state": {0: {"momentum_buffer": weight * 2}, 10: {"momentum_buffer": np.ones(2, np.float32)}},
        "param_groups": [{"lr": 0.1, "nesterov": True, "params": [0, 10]}, {"lr": np.float64(0.2), "params": []}],
    }
    return Checkpoint(model, optimizer, {"epoch": 3, "recipe": {"model": "resnet8", "note": "ä"}})


def assert_equal(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            assert_equal(x, y)
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        np.testing.assert_array_equal(a, b)
    else:
        assert a == b


def test_what_is_saved_is_loaded(tmp_path):
    saved = example()
    saved.save(tmp_path / "a.safetensors")
    loaded = Checkpoint.load(tmp_path / "a.safetensors")
    assert loaded.info == saved.info
    saved.optimizer["param_groups"][1]["lr"] = 0.2  # NumPy scalars come back as Python's
    assert_equal(loaded.optimizer, saved.optimizer)
    assert_equal(dict(sorted(loaded.model.items())), dict(sorted(saved.model.items())))


def test_equal_checkpoints_are_equal_files(tmp_path):
    for name in "ab":
        example().save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_weights_are_there_for_any_reader_of_safetensors(tmp_path):
    example().save(tmp_path / "a.safetensors")
    arrays = load_file(tmp_path / "a.safetensors")
    for name, array in example().model.items():
        np.testing.assert_array_equal(arrays[name], array)
    assert all(name.startswith("optimizer/") for name in set(arrays) - set(example().model))


def test_a_weight_cannot_hide_in_the_optimizer(tmp_path):
    checkpoint = example()
    checkpoint.model["optimizer/state/0/momentum_buffer"] = np.zeros(1)
    with pytest.raises(DataError, match="belongs to the optimizer or a batch"):
        checkpoint.save(tmp_path / "a")


def test_a_batch_is_kept_apart(tmp_path):
    saved = Checkpoint(
        {"w": np.ones(2)}, batch={"images": np.zeros((2, 3)), "training": True, "random": {"state": 2**100}}
    )
    saved.save(tmp_path / "a")
    loaded = Checkpoint.load(tmp_path / "a")
    assert_equal(loaded.batch, saved.batch)
    assert (list(loaded.model), loaded.optimizer) == (["w"], {})


def test_a_file_cut_anywhere_is_refused_by_name(tmp_path, page):
    path = tmp_path / "a.safetensors"
    example().save(path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=rf"a.safetensors \({length:,} bytes\) is cut off or corrupt") as caught:
            Checkpoint.load(path)
        page(str(caught.value))


@pytest.mark.parametrize("flip", [0x01, *(pytest.param(flip, marks=pytest.mark.slow) for flip in (0x20, 0x80, 0xFF))])
def test_a_byte_changed_anywhere_is_refused_by_name(tmp_path, flip, page):
    path = tmp_path / "a.safetensors"
    example().save(path)
    whole = path.read_bytes()
    said = set()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
        with pytest.raises(DataError, match=r"a.safetensors .*(cut off or corrupt|was changed after it was)") as caught:
            Checkpoint.load(path)
        page(str(caught.value))
        said.add("checksum" in str(caught.value))
    assert said == {True, False}
    path.write_bytes(whole)
    assert_equal(Checkpoint.load(path).info, example().info)


def test_a_checkpoint_without_its_checksum_is_refused(tmp_path):
    save_file(example().model, tmp_path / "a", metadata={"minires": '{"info": {"epoch": 3}}'})
    with pytest.raises(DataError, match="its checksum is not right"):
        Checkpoint.load(tmp_path / "a")


@pytest.mark.parametrize(
    ("name", "beside", "said"),
    [
        ("last", "best.safetensors", "Copy .*best.safetensors over it to go on from there$"),
        ("last", "config.toml", r"Delete it, and `minires train --resume \S+` does the run again from its beginning$"),
        ("best", "last.safetensors", r"Take \S+last.safetensors, the latest one, in its place$"),
        ("other", "last.safetensors", "Take another copy of it, or do its run again$"),
    ],
)
def test_the_way_out_of_a_damaged_one(tmp_path, name, beside, said):
    (tmp_path / beside).touch()
    example().save(tmp_path / f"{name}.safetensors")
    damaged = bytearray((tmp_path / f"{name}.safetensors").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / f"{name}.safetensors").write_bytes(damaged)
    with pytest.raises(DataError, match=said):
        Checkpoint.load(tmp_path / f"{name}.safetensors")


def test_there_is_none(tmp_path):
    with pytest.raises(DataError, match="there is no checkpoint"):
        Checkpoint.load(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_files_of_other_programs_are_weights(tmp_path, metadata):
    save_file({"x": np.arange(3.0)}, tmp_path / "foreign.safetensors", metadata=metadata)
    loaded = Checkpoint.load(tmp_path / "foreign.safetensors")
    np.testing.assert_array_equal(loaded.model["x"], np.arange(3.0))
    assert (loaded.optimizer, loaded.info, loaded.batch) == ({}, {}, {})

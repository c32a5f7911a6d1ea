"""What a file of weights says of the network that it is for, and what is reported when it does not fit."""

import pytest

from minires import models
from minires.errors import WeightsError
from minires.interop import create_model, inferred_options, load_weights, save_safetensors


@pytest.mark.parametrize(
    ("name", "made", "expected"),
    [
        ("resnet8", {}, {}),
        ("resnet8", {"option": "B"}, {"option": "B"}),
        ("preresnet8", {}, {}),
        ("preresnet8", {"option": "B"}, {"option": "B"}),
        ("plain8", {}, {}),
        ("resnet20", {}, {}),
        ("whitened_resnet11", {}, {}),  # which has no such option
        ("resnet18", {}, {}),
        ("resnet18", {"small_images": True}, {"small_images": True}),
    ],
)
def test_options_of_a_file(tmp_path, name, made, expected):
    save_safetensors(models.create(name, num_classes=7, **made), tmp_path / "a.safetensors")
    assert inferred_options(name, tmp_path / "a.safetensors", {"num_classes": 3}) == expected
    assert inferred_options(name, tmp_path / "a.safetensors") == expected | {"num_classes": 7}
    for option, value in expected.items():
        assert inferred_options(name, tmp_path / "a.safetensors", {"num_classes": 7, option: value}) == {}


def test_the_report_says_what_the_file_tells(tmp_path):
    save_safetensors(models.resnet18(num_classes=7, small_images=True), tmp_path / "a.safetensors")
    _, report = create_model("resnet18", tmp_path / "a.safetensors")
    assert "so resnet18 with num_classes=7, small_images=True" in str(report)
    _, report = create_model("resnet18", tmp_path / "a.safetensors", model_options={"small_images": True})
    assert "so resnet18 with num_classes=7, no max" in str(report)
    save_safetensors(models.resnet20(option="B"), tmp_path / "c.safetensors")
    assert str(create_model("resnet20", tmp_path / "c.safetensors")[1]).endswith("matched, so resnet20 with option=B")
    save_safetensors(models.resnet20(), tmp_path / "b.safetensors")
    assert create_model("resnet20", tmp_path / "b.safetensors")[1].notes == []


def test_an_error_has_the_report(tmp_path):
    save_safetensors(models.resnet8(num_classes=7), tmp_path / "a.safetensors")
    with pytest.raises(WeightsError) as caught:
        load_weights(models.resnet8(), tmp_path / "a.safetensors")
    assert {m.in_model for m in caught.value.report.misshapen} == {"fc.weight", "fc.bias"}
    with pytest.raises(WeightsError) as caught:
        load_weights(models.resnet8(), tmp_path / "nowhere.safetensors")
    assert caught.value.report is None


def test_an_auxiliary_classifier_stays_as_it_is(tmp_path):
    """Files of networks in use have none; one for another number of classes goes with the head."""
    save_safetensors(models.resnet8(), tmp_path / "without.safetensors")
    model = models.resnet8(aux_weight=0.3)
    assert load_weights(model, tmp_path / "without.safetensors").kept == ["aux.fc.weight", "aux.fc.bias"]
    save_safetensors(models.resnet8(aux_weight=0.3, num_classes=7), tmp_path / "with.safetensors")
    with pytest.raises(WeightsError, match="4 misshapen"):
        load_weights(model, tmp_path / "with.safetensors")
    before = model.aux.fc.weight.data.copy()
    report = load_weights(model, tmp_path / "with.safetensors", replace_head=True)
    assert sorted(report.kept) == ["aux.fc.bias", "aux.fc.weight", "fc.bias", "fc.weight"]
    assert (model.aux.fc.weight.data == before).all()

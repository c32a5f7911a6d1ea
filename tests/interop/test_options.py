"""What a file of weights says of the network that it is for, and what is reported when it does not fit."""

import pytest

from minires import models
from minires.errors import WeightsError
from minires.interop import load_weights, save_safetensors, shortcut_option


@pytest.mark.parametrize(
    ("name", "option", "expected"),
    [
        ("resnet8", "A", None),
        ("resnet8", "B", "B"),
        ("preresnet8", "A", None),
        ("preresnet8", "B", "B"),
        ("plain8", None, None),
        ("resnet20", None, None),  # a plain network, whose shortcuts are nowhere to be seen
        ("whitened_resnet11", None, None),  # which has no such option
    ],
)
def test_shortcuts_of_a_file(tmp_path, name, option, expected):
    options = {} if option is None else {"option": option}
    save_safetensors(models.create(name, num_classes=7, **options), tmp_path / "a.safetensors")
    assert shortcut_option(name, tmp_path / "a.safetensors") == expected
    assert shortcut_option(name, tmp_path / "a.safetensors", {"num_classes": 3}) == expected


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

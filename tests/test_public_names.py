"""`import wdlg` is fast and has what it promises; its two verbs recover images and labels."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import wdlg
from wdlg.attacks import Optimised
from wdlg.attacks.closed_form import FirstLayer
from wdlg.sharing import FedAvg

ROOT = Path(__file__).parents[1]

HEAVY = {"torch", "numpy", "numba", "pandas", "scipy", "sklearn", "skimage", "matplotlib", "PIL"}


def in_a_fresh_process(program):
    """What a program prints, as JSON, in a process that has imported nothing."""
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return json.loads(answer.stdout)


def test_importing_the_library_loads_nothing_heavy_and_takes_no_time():
    seconds, loaded = in_a_fresh_process(
        "import json, sys, time; before = time.perf_counter(); import wdlg; dir(wdlg);"
        "print(json.dumps([time.perf_counter() - before, list(sys.modules)]))"
    )
    assert seconds < 0.3
    assert not HEAVY & set(loaded)
    assert [name for name in loaded if name.startswith("wdlg")] == ["wdlg"]


def test_every_name_loads_first_in_a_star_import():
    names = in_a_fresh_process(
        "import json; from wdlg import *; print(json.dumps([one for one in dir() if one[:2] != '__']))"
    )
    assert set(names) - {"json"} == set(wdlg.__all__)


@pytest.mark.parametrize("name", wdlg.__all__)
def test_a_name_is_the_one_of_its_room(name):
    value = getattr(wdlg, name)
    assert value is not None
    home = wdlg._HOMES[name] or f"wdlg.{name}"
    assert value is getattr(sys.modules[home], name, sys.modules[home])


def test_dir_is_the_list_of_names_and_the_version():
    assert dir(wdlg) == sorted([*wdlg.__all__, "__version__"])
    assert re.match(r"\d+\.\d+", wdlg.__version__)


def test_type_checkers_and_the_table_know_the_same_names():
    """Names under TYPE_CHECKING are what an editor offers."""
    text = (ROOT / "wdlg" / "__init__.py").read_text()
    block = text[text.index("if TYPE_CHECKING:") : text.index("_HOMES")]
    offered = {
        name.strip()
        for line in re.findall(r"^    from \S+ import (.+)$", block, flags=re.MULTILINE)
        for name in line.split(",")
    }
    assert offered == set(wdlg.__all__) == set(wdlg._HOMES)


def test_an_unknown_name_is_no_attribute():
    with pytest.raises(AttributeError, match="^module 'wdlg' has no attribute 'wlg'$"):
        wdlg.wlg  # noqa: B018


def test_the_library_page_begins_with_the_names():
    text = (ROOT / "book" / "api.md").read_text()
    table = text[: text.index("## How the library is built")]
    named = {name for line in re.findall(r"^\| (\{.+?) \|", table, flags=re.MULTILINE) for name in
             re.findall(r"`(\w+) <", line)}  # fmt: skip
    assert named == set(wdlg.__all__)


# The two verbs


def classifier(*, seed=0, hidden=24):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, hidden), nn.Sigmoid(), nn.Linear(hidden, 5)).double()


def gradients_of(module, images, labels):
    loss = nn.functional.cross_entropy(module(images), torch.tensor(labels))
    return torch.autograd.grad(loss, list(module.parameters()))


def private(count):
    return torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("method", [wdlg.IDLG, wdlg.DLG, FirstLayer()], ids=lambda method: method.name)
def test_a_module_and_its_gradients_give_image_and_label_away(method):
    module, images = classifier(), private(1)
    found = wdlg.attack_module(module, gradients_of(module, images, [3]), (1, 6, 6), method)
    assert found.images.shape == images.shape
    assert (found.images - images).square().mean() < 1e-4
    assert found.labels.tolist() == [3]


def test_small_gradients_give_the_image_away_too():
    module, images = classifier(), private(1)
    with torch.no_grad():
        module[3].weight *= 0.001  # so that little comes back to the layer that sees the image
    gradients = gradients_of(module, images, [3])
    errors = [
        (wdlg.attack_module(module, gradients, (1, 6, 6), *method).images - images).square().mean()
        for method in ((), (wdlg.IDLG,))
    ]
    assert errors[0] < 1e-4
    assert errors[1] > 0.1


def test_two_images_come_out_of_one_gradient_in_the_order_of_their_labels():
    module, images = classifier(hidden=48), private(2)
    found = wdlg.attack_module(module, gradients_of(module, images, [4, 1]), (1, 6, 6), images=2)
    assert found.images.shape == (1, 2, 1, 6, 6)
    assert found.labels.tolist() == [[1, 4]]
    assert (found.images[0] - images.flip(0)).square().mean() < 1e-4


def test_gradients_may_be_arrays_or_a_table():
    module, images = classifier(), private(1)
    gradients = gradients_of(module, images, [2])
    names = [name for name, _ in module.named_parameters()]
    once = Optimised("once", "row_sum", evaluations=3)
    ways = [gradients, [one.numpy() for one in gradients], dict(zip(names, gradients, strict=True))]
    results = [wdlg.attack_module(module, way, (1, 6, 6), once).images for way in ways]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_a_seed_decides_the_dummies_of_an_attack():
    network = wdlg.LeNet((1, 8, 8), 4)
    parameters = network.initial_parameters(2, generator=torch.Generator().manual_seed(0))
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    seen = wdlg.Observation(network, parameters, network.gradient(parameters, images, torch.eye(4)[:2]))
    few = Optimised("few", "row_sum", evaluations=1)
    first, again, other = (wdlg.attack(seen, few, seed=seed).first_loss for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # N(0, 1), images first: the loss at the first evaluation is that of these dummies.
    dummies = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    at_dummies = network.gradient(parameters, dummies, torch.eye(4)[:2])
    torch.testing.assert_close(first, few.loss(at_dummies, seen.gradient))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"module": "LeNet"}, "^module is 'LeNet', but must be a torch.nn.Module.$"),
        ({"gradients": None}, "^tensors is of type NoneType, but must be a list or table of gradients"),
        ({"gradients": []}, "^tensors ends with shapes of nothing, but must end with "),
        ({"image_shape": (6, 6)}, r"^image_shape is \(6, 6\), but must be "),
        ({"image_shape": (1, 7, 7)}, "^module "),
        ({"images": 0}, "^images is 0, but must be a whole number, at least 1.$"),
        ({"mode": "train"}, "^mode is 'train', but must be one of evaluation, training.$"),
        ({"seed": -1}, "^seed is -1, but must be a whole number, at least 0 and"),
        ({"method": "idlg"}, "^method is 'idlg', but must be an attack, such as wdlg.IDLG.$"),
        ({"sharing": "FedAvg"}, "^sharing is 'FedAvg', but must be a value of wdlg.sharing"),
        ({"sharing": FedAvg}, "^sharing is <class .*FedAvg'>, but must be a value of wdlg.sharing"),
        ({"method": Optimised}, "^method is <class .*Optimised'>, but must be an attack"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_attacked_is_told_in_one_sentence(changes, message):
    module = classifier()
    given = {
        "module": module,
        "gradients": gradients_of(module, private(1), [3]),
        "image_shape": (1, 6, 6),
    }
    with pytest.raises(wdlg.InputError, match=message) as refused:
        wdlg.attack_module(**(given | changes))
    assert "\n" not in str(refused.value)


def test_the_gradient_of_two_images_is_not_taken_for_that_of_one():
    module = classifier()
    with pytest.raises(wdlg.InputError, match="^tensors holds .* rank above one"):
        wdlg.attack_module(module, gradients_of(module, private(2), [4, 1]), (1, 6, 6))

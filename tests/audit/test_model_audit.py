"""What an audit says is what plain autograd, brute force and the rest of the library say."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import models_for_tests as models
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

import wdlg
from wdlg import audit, limits
from wdlg.audit import bounds
from wdlg.audit.estimate import spectrum
from wdlg.audit.files import read_tensors
from wdlg.audit.message import one_hot, require_private, sharing_of
from wdlg.audit.report import as_object, as_page, as_text, write_page
from wdlg.audit.run import read_labels
from wdlg.cli import main
from wdlg.errors import InputError
from wdlg.networks import ModuleNetwork
from wdlg.sharing.defences import Noise, Pruning
from wdlg.sharing.federated import FedAvg, FedSGD

HERE = Path(__file__).parent / "models_for_tests.py"


def digits(system, *indices):
    sample = wdlg.data.load("digits")
    places = list(indices)
    labels = torch.tensor(sample.labels[places]) % system.classes
    return require_private(system, sample.tensor(places), labels)


def of(model, *indices, **settings):
    torch.manual_seed(0)
    system = audit.system(model, (1, 8, 8), **settings)
    private = digits(system, *(indices or (3,)))
    return system, private, audit.made(system, private, FedSGD())


def gradients(model, private, loss=F.cross_entropy, *, change=lambda images: images):
    """By name, as a training loop has them."""
    model.zero_grad()
    loss(model.eval()(change(private.images)), private.labels).backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    return found


def assert_sent(system, message, expected):
    for name, tensor in zip(system.names, message.gradient.tensors(), strict=False):
        assert torch.allclose(tensor.flatten(), expected[name].flatten(), atol=1e-6), name


@pytest.mark.parametrize("make", [models.lenet, models.Pooled, models.without_bias])
@pytest.mark.parametrize("indices", [(3,), (3, 7)])
def test_what_a_model_sends_is_its_gradient_by_autograd(make, indices):
    torch.manual_seed(1)
    model = make()
    system, private, message = of(model, *indices)
    assert_sent(system, message, gradients(model, private))
    assert system.own_output == (make is models.lenet)
    assert message.complete == system.own_output


def test_a_single_score_is_a_class_against_zero():
    model = models.one_score()
    system, private, message = of(model, 4)
    assert system.one_score
    assert system.classes == 2
    expected = gradients(
        model, private, lambda scores, y: F.binary_cross_entropy_with_logits(scores[:, 0], y.float())
    )
    assert_sent(system, message, expected)


def test_images_are_normalised_before_the_model():
    model = models.lenet()
    system, private, message = of(model, mean=(0.25,), deviation=(0.5,))
    assert system.own_output
    assert_sent(system, message, gradients(model, private, change=lambda images: (images - 0.25) / 0.5))


def test_the_bound_of_a_model_with_linear_output_is_that_of_the_library():
    model = models.lenet()
    system, private, message = of(model)
    found = audit.leak(system, message, private).limits
    network = ModuleNetwork(model, (1, 8, 8))
    expected = limits.limits(network, network.parameters(), private.images[0], int(private.labels[0]))
    assert found.entries == expected.entries
    assert found.size == pytest.approx(expected.size, rel=1e-5)
    assert torch.allclose(found.singular_values, expected.singular_values, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("indices", [(3,), (3, 8)])
@pytest.mark.parametrize("sent", [{"body.0.weight"}, {"body.1.weight", "head.bias"}, None])
def test_bounds_by_layer_are_those_of_the_jacobian_written_out(sent, indices):
    torch.manual_seed(2)
    model = models.Pooled()
    system, private, whole = of(model, *indices)
    tensors = dict(zip(system.names, (t for t in whole.gradient.tensors()), strict=False))
    tensors = {
        name: tensors[name].reshape(parameter.shape)
        for name, parameter in model.named_parameters()
        if sent is None or name in sent
    }
    message = audit.read(system, private, tensors, FedSGD(), partial=sent is not None)
    found = audit.leak(system, message, private)

    doubled = {name: tensor.detach().double() for name, tensor in model.eval().state_dict().items()}
    weights = {name: doubled[name] for name, _ in model.named_parameters()}

    def rows(images, name):
        def loss(weight):
            scores = functional_call(model, {**doubled, name: weight}, (images,))
            return F.cross_entropy(scores, private.labels)

        return torch.func.grad(loss)(weights[name]).flatten()

    jacobians = {
        name: torch.autograd.functional.jacobian(
            lambda images, name=name: rows(images, name), private.images.double()
        ).flatten(1)
        for name in tensors
    }
    layers: dict[str, list] = {}
    for name, one in jacobians.items():
        layers.setdefault(name.rpartition(".")[0], []).append(one)
    whole_jacobian = torch.cat(list(jacobians.values()))
    scale = float(torch.linalg.svdvals(whole_jacobian)[0])
    assert found.limits.entries == len(whole_jacobian)
    assert found.rank == int((torch.linalg.svdvals(whole_jacobian) > 1e-6 * scale).sum())
    exact = torch.linalg.svdvals(whole_jacobian)[: found.rank]
    assert torch.allclose(found.limits.singular_values[: found.rank], exact, rtol=1e-4, atol=1e-7 * scale)
    assert [layer.name for layer in found.layers] == list(layers)
    for layer, parts in zip(found.layers, layers.values(), strict=True):
        values = torch.linalg.svdvals(torch.cat(parts))
        assert layer.entries == sum(map(len, parts))
        assert layer.rank == int((values > 1e-6 * values[0]).sum())
        assert torch.allclose(layer.singular_values, values[: layer.rank], rtol=1e-4, atol=1e-7 * scale)


def test_directions_of_a_layer_are_told_by_the_noise_on_its_entries():
    layer = audit.Layer("one", 10, 2, torch.tensor([4.0, 1.0]))
    assert [layer.directions(s, 0.1) for s in (0, 0.1, 0.1001, 0.4, 0.41)] == [2, 2, 1, 1, 0]


@given(seed=st.integers(0, 10_000), value=st.floats(1e-6, 50))
@settings(max_examples=60, deadline=None)
def test_the_bounds_of_an_unknown_spectrum_hold_the_true_count_of_each_direction(seed, value):
    stream = torch.Generator().manual_seed(seed)
    eigenvalues = 10 ** (4 * torch.rand(40, generator=stream, dtype=torch.float64) - 3)
    basis = torch.linalg.qr(torch.randn(40, 40, generator=stream, dtype=torch.float64))[0]
    matrix = basis @ torch.diag(eigenvalues) @ basis.T
    few, all_ = (
        spectrum(lambda v: matrix @ v, 40, directions=6, steps=steps, seed=seed) for steps in (9, 40)
    )
    for nodes, weights, exact, shares in zip(few.nodes, few.weights, all_.nodes, all_.weights, strict=True):
        from wdlg.audit.estimate import _bounds

        low, high = _bounds(nodes, weights, value)
        true = float(shares[exact >= value].sum())
        assert low - 1e-9 <= true <= high + 1e-9
    low, high = all_.above(value)
    assert 0 <= low <= high <= 40


def test_products_with_the_jacobian_are_those_of_the_jacobian_that_is_held(monkeypatch):
    system, private, message = of(models.Pooled())
    exact = audit.leak(system, message, private)
    monkeypatch.setattr(bounds, "MOST_NUMBERS", 1)
    found = audit.leak(system, message, private)
    assert exact.spectrum is None
    assert found.limits is None
    rows = exact.limits.singular_values[:, None] * exact.limits.vectors.flatten(1)
    known = spectrum(lambda direction: rows.T @ (rows @ direction), 64)
    assert torch.allclose(found.spectrum.nodes[:, -12:], known.nodes[:, -12:], rtol=1e-3)
    for level in (1e-4, 1e-2, 0.1, 1.0):
        low, high = found.directions(level, 0.1)
        assert low - 3 <= exact.directions(level, 0.1)[0] <= high + 3  # 95 %, of each
    assert found.rank is None
    assert found.bound(0.1) is None


def test_an_audit_recovers_what_its_bound_says_can_be_recovered_and_nothing_else():
    whole = audit.audit(*_ordered(of(models.lenet())), defences=[Noise(0.01), Pruning(0.5)], evaluations=50)
    assert whole.leak.rank == 64
    assert whole.labels.leaked
    assert {one.attack for one in whole.attempts} == {"closed form", "LM", "iDLG (L-BFGS)"}
    assert max(next(one for one in whole.attempts if one.attack == "LM").mse) < 1e-9
    assert max(next(one for one in whole.attempts if one.attack == "closed form").mse) < 1e-9
    noisy, pruned = whole.defended
    assert noisy.relative_error == pytest.approx(0.01, rel=0.1)
    assert noisy.bound == pytest.approx(whole.leak.limits.bound(0.01))
    assert 0.3 * noisy.bound < max(noisy.attempts[0].mse) < 3 * noisy.bound
    assert pruned.bound is None

    poor = audit.audit(*_ordered(of(models.Pooled(width=2))), evaluations=50)
    assert poor.leak.rank < 64
    assert not any(one.succeeded for one in poor.attempts)
    assert poor.labels.rule == "none"


def _ordered(parts):
    system, private, message = parts
    return system, message, private


def test_two_images_are_recovered_together_and_matched():
    system, private, message = of(models.lenet(), 3, 7)
    found = audit.audit(system, message, private, evaluations=20)
    best = found.best
    assert best.attack == "LM"
    assert max(best.mse) < 1e-6
    assert np.allclose(best.images, private.images.numpy(), atol=1e-2)


def test_repeated_labels_of_several_images_are_read_and_what_is_an_estimate_is_said():
    sample = wdlg.data.load("digits")
    places = [place for place, label in enumerate(sample.labels) if label == 5][:2]
    torch.manual_seed(0)
    system = audit.system(models.lenet(), (1, 8, 8))
    private = digits(system, *places)
    labels, rule = read_labels(system, audit.made(system, private, FedSGD()), private)
    assert labels.read == labels.true == (5, 5)
    assert rule.labels == (5, 5)
    assert ("certain" in labels.note) or ("Certain" in labels.note)


def test_a_label_is_read_without_a_bias_and_said_to_be_unreadable_where_no_rule_applies():
    system, private, message = of(models.without_bias())
    labels, _ = read_labels(system, message, private)
    assert labels.rule == "row_sum"
    assert labels.leaked
    labels, _ = read_labels(*_ordered(of(models.Pooled())))
    assert labels.rule == "none"
    assert not labels.leaked


def exported(model, private, folder, kind):
    tensors = gradients(model, private)
    path = folder / f"message.{kind}"
    if kind == "npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in tensors.items()})
    elif kind == "safetensors":
        from safetensors.torch import save_file

        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


@pytest.mark.parametrize("kind", ["npz", "pt", "safetensors"])
@pytest.mark.parametrize("make", [models.lenet, models.Pooled])
def test_a_message_of_a_file_is_the_one_that_was_sent(make, kind, tmp_path):
    model = make()
    system, private, sent = of(model)
    path = exported(model, private, tmp_path, kind)
    found = audit.read(system, private, read_tensors(path, "message"), FedSGD())
    for one, other in zip(found.gradient.tensors(), sent.gradient.tensors(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    assert found.sent == sent.sent


def test_a_list_a_wrapper_s_names_and_buffers_are_understood(tmp_path):
    model = models.Pooled()
    system, private, sent = of(model)
    tensors = gradients(model, private)
    np.savez(tmp_path / "list.npz", *(tensor.numpy() for tensor in tensors.values()))
    named = {f"module.{name}": tensor for name, tensor in tensors.items()}
    named["module.body.1.running_mean"] = torch.zeros(6)
    for table in (read_tensors(tmp_path / "list.npz", "message"), named):
        found = audit.read(system, private, table, FedSGD())
        assert all(
            torch.allclose(one, other, atol=1e-6)
            for one, other in zip(found.parts(), sent.parts(), strict=True)
        )
    assert any("running_mean" in note for note in found.notes)
    renamed = {("first" if name == "body.0.weight" else name): tensor for name, tensor in tensors.items()}
    assert (
        audit.read(system, private, renamed, FedSGD(), renamed={"first": "body.0.weight"}).sent == sent.sent
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_taken_and_said(dtype):
    model = models.lenet()
    system, private, _ = of(model)
    given = {name: tensor.to(dtype) for name, tensor in gradients(model, private).items()}
    found = audit.read(system, private, given, FedSGD())
    assert any(str(dtype).removeprefix("torch.") in note for note in found.notes)
    assert found.gradient.bias.dtype == torch.float32


def test_a_change_of_weights_is_brought_back_to_gradients():
    model = models.lenet()
    system, private, sent = of(model)
    given = {name: -0.05 * tensor for name, tensor in gradients(model, private).items()}
    found = audit.read(system, private, given, FedSGD(), delta_rate=0.05)
    assert all(
        torch.allclose(one, other, atol=1e-5) for one, other in zip(found.parts(), sent.parts(), strict=True)
    )


def test_local_steps_are_those_of_a_training_loop():
    torch.manual_seed(3)
    model = models.Pooled()
    system, private, _ = of(model, 3, 5)
    worker = models.Pooled()
    worker.load_state_dict(model.state_dict())
    worker.eval()
    optimizer = torch.optim.SGD(worker.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(worker(private.images), private.labels).backward()
        optimizer.step()
    before = dict(model.named_parameters())
    delta = {name: (new - before[name]).detach() for name, new in worker.named_parameters()}
    sharing = sharing_of(system, 3, 0.1, 2)
    assert isinstance(sharing, FedAvg)
    found = audit.read(system, private, delta, sharing, delta_rate=0.1, steps=3)
    expected = audit.made(system, private, sharing)
    for one, other in zip(found.parts(), expected.parts(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert any("of these images to" in note for note in found.notes)


def test_frozen_layers_are_not_sent():
    model = models.Pooled()
    model.body[0].requires_grad_(False)
    system, private, message = of(model)
    assert message.sent[:2] == (False, False)
    assert [layer.name for layer in audit.leak(system, message, private).layers] == ["body.1", "head"]


def changed(tensors, **changes):
    return {**tensors, **{name.replace("__", "."): value for name, value in changes.items()}}


BAD = {
    "missing": (lambda t: {name: t[name] for name in list(t)[1:]}, "has no body.0.weight"),
    "extra": (lambda t: {**t, "other": torch.zeros(3)}, "'other', which is no parameter"),
    "nan": (lambda t: changed(t, head__bias=torch.full((4,), math.nan)), "NaN or infinite"),
    "shape": (lambda t: changed(t, head__bias=torch.zeros(5)), "of shape (5,), but the parameter"),
    "swapped": (lambda t: changed(t, body__0__bias=t["body.1.weight"], body__1__weight=t["body.0.bias"]),
                "in each other's place"),
    "turned": (lambda t: {name: -one for name, one in t.items()}, "points away"),
    "scaled": (lambda t: {name: 8 * one for name, one in t.items()}, "times the gradient"),
    "foreign": (lambda t: {n: torch.randn(one.shape, generator=torch.Generator().manual_seed(0))
                           for n, one in t.items()}, "not one of these images"),
    "moments": (lambda t: {**t, "body.0.weight.exp_avg": torch.zeros(3)}, "average over steps"),
    "short list": (lambda t: list(t.values())[:-1], "is a list of 5 tensors"),
    "nothing": (lambda _: {}, "no parameter of the model"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_message_that_does_not_fit_is_refused_in_a_sentence(case):
    torch.manual_seed(5)
    model = models.Pooled()
    with torch.no_grad():
        model.body[0].bias.normal_()
        model.body[1].weight.normal_()
    system, private, _ = of(model)
    spoil, told = BAD[case]
    with pytest.raises(InputError, match=".*") as caught:
        audit.read(system, private, spoil(gradients(model, private)), FedSGD())
    assert told in str(caught.value)


def test_a_transposed_weight_is_told_to_be_one():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    system, private, _ = of(model)
    given = gradients(model, private)
    given["1.weight"] = given["1.weight"].T
    with pytest.raises(InputError, match="it is transposed"):
        audit.read(system, private, given, FedSGD())


class Evil:
    def __reduce__(self):
        return (open, ("executed-by-a-pickle", "w"))


@pytest.mark.parametrize("wrap", [lambda evil: {"a": evil}, lambda evil: [evil]])
def test_pickles_are_never_executed(wrap, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(wrap(Evil()), "message.pt")
    Path("old.pt").write_bytes(pickle.dumps(wrap(Evil())))
    np.savez("objects.npz", np.array([Evil()], dtype=object))
    for name in ("message.pt", "old.pt", "objects.npz"):
        with pytest.raises(InputError):
            read_tensors(name, "message")
    assert not Path("executed-by-a-pickle").exists()


def test_an_optimiser_s_state_is_no_message(tmp_path):
    model = models.lenet()
    optimizer = torch.optim.Adam(model.parameters())
    F.cross_entropy(model(torch.rand(1, 1, 8, 8)), torch.tensor([1])).backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "adam.pt")
    with pytest.raises(InputError, match="state of an optimiser"):
        read_tensors(tmp_path / "adam.pt", "message")


@pytest.mark.parametrize("make", [models.lenet, models.Pooled])
def test_noise_has_its_level_relative_to_what_is_sent(make):
    _, _, message = of(make())
    noisy = message.defended(Noise(0.2), seed=1)
    gap = (
        sum(float((a - b).square().sum()) for a, b in zip(noisy.parts(), message.parts(), strict=True)) ** 0.5
    )
    assert gap / message.size == pytest.approx(0.2, rel=0.2)
    for tensor, sent in zip(noisy.gradient.tensors(), message.sent, strict=True):
        assert sent or not tensor.any()


def test_the_page_needs_nothing_else_and_says_what_the_object_says(tmp_path):
    system, private, message = of(models.lenet())
    found = audit.audit(system, message, private, defences=[Noise(0.01)], evaluations=20)
    told, page = as_object(found), as_page(found)
    json.dumps(told)
    for key in ("rank", "directions", "labels", "attacks", "bound", "versions", "seed"):
        assert key in told
    assert told["directions"] == {
        f"{level:g}": found.leak.directions(level, 0.1)[0] for level in found.levels
    }
    assert "http" not in page
    assert page.count("<img") == page.count('src="data:image/png;base64,') == page.count('alt="') > 4
    assert told["verdict"] in page.replace("&#39;", "'")
    assert told["verdict"] in as_text(found)
    with pytest.raises(InputError, match="--report"):
        write_page(found, tmp_path / "nowhere" / "leak.html")
    write_page(found, tmp_path / "leak.html")
    assert [one.name for one in tmp_path.iterdir()] == ["leak.html"]


def run(*arguments):
    return CliRunner().invoke(main, ["audit", *map(str, arguments)], catch_exceptions=False)


FITTING = ("--image-shape", "1,8,8", "--dataset", "digits")


def test_the_command_prints_one_object_and_writes_a_page(tmp_path):
    result = run(
        "--model", f"{HERE}:lenet", *FITTING, "--index", 3, "--noise", 0.01, "--noise", 0.1,
        "--evaluations", 20, "--report", tmp_path / "leak.html", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)
    assert list(told["directions"]) == ["0.01", "0.1"]
    assert told["rank"] == 64
    assert told["seed"] == 0
    assert (tmp_path / "leak.html").read_text().startswith("<!doctype html>")


MISTAKES = {
    "no colon": (("--model", "nothing", *FITTING), "must be package.module:factory"),
    "no module": (("--model", "no_such_module:make", *FITTING), "cannot be imported (ModuleNotFoundError"),
    "no file": (("--model", "nowhere.py:make", *FITTING), "but there is none"),
    "no name": (("--model", f"{HERE}:missing", *FITTING), "has no missing"),
    "number": (("--model", f"{HERE}:number", *FITTING), "gives a int"),
    "broken": (("--model", f"{HERE}:broken", *FITTING), "ValueError: the weights are gone"),
    "random": (("--model", f"{HERE}:Random", *FITTING), "must draw no random numbers"),
    "shape": (("--model", f"{HERE}:lenet", "--image-shape", "1,8", "--dataset", "digits"), "must be C,H,W"),
    "other images": (("--model", f"{HERE}:lenet", "--image-shape", "1,8,8", "--dataset", "photographs"),
                     "has images of shape"),
    "other shape": (("--model", f"{HERE}:lenet", "--image-shape", "3,8,8", "--dataset", "digits"),
                    "does not take images of shape"),
    "no images": (("--model", f"{HERE}:lenet", "--image-shape", "1,8,8"), "--dataset or by --images"),
    "label": (("--model", f"{HERE}:Pooled", *FITTING, "--index", 0), "from 0 to 3"),
    "rate": (("--model", f"{HERE}:lenet", *FITTING, "--local-steps", 2), "needs --learning-rate"),
    "rate 0": (("--model", f"{HERE}:lenet", *FITTING, "--local-steps", 2, "--learning-rate", 0), "above 0"),
    "delta": (("--model", f"{HERE}:lenet", *FITTING, "--delta"), "needs --gradient"),
    "mean": (("--model", f"{HERE}:lenet", *FITTING, "--mean", "0.1"), "belong together"),
    "std": (("--model", f"{HERE}:lenet", *FITTING, "--mean", "0.1", "--std", "0"), "above 0"),
    "report": (("--model", f"{HERE}:lenet", *FITTING, "--report", "leak.txt"), "ends in .html"),
    "gradient": (("--model", f"{HERE}:lenet", *FITTING, "--gradient", "nowhere.pt"), "but there is none"),
    "kind": (("--model", f"{HERE}:lenet", *FITTING, "--gradient", "message.pickle"), "must end in one of"),
    "weights": (("--model", f"{HERE}:lenet", *FITTING, "--weights", "nowhere.pt"), "but there is none"),
    "noise": (("--model", f"{HERE}:lenet", *FITTING, "--noise", "-1"), "0 or above"),
    "defence": (("--model", f"{HERE}:lenet", *FITTING, "--defence", "noise"), "noise,level=VALUE"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_told_in_one_sentence_and_nothing_is_written(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, told = MISTAKES[case]
    page = () if "--report" in arguments else ("--report", "leak.html")
    result = run(*arguments, *page)
    assert result.exit_code == 2
    assert told in result.output
    assert "Traceback" not in result.output
    assert result.output.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_weights_of_a_file_are_those_that_are_audited(tmp_path):
    torch.manual_seed(9)
    model = models.lenet()
    torch.save({"state_dict": model.state_dict()}, tmp_path / "weights.pt")
    loaded = audit.load(f"{HERE}:lenet", (1, 8, 8), weights=tmp_path / "weights.pt", seed=1)
    for one, other in zip(loaded.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)
    state = model.state_dict()
    state.pop("0.bias")
    torch.save(state, tmp_path / "less.pt")
    with pytest.raises(InputError, match=r"has no 0\.bias"):
        audit.load(f"{HERE}:lenet", (1, 8, 8), weights=tmp_path / "less.pt")


def test_pictures_of_a_folder_are_one_message(tmp_path):
    from PIL import Image

    sample = wdlg.data.load("digits")
    for place in (3, 5):
        folder = tmp_path / f"class{place}"
        folder.mkdir()
        Image.fromarray(sample.images[place, ..., 0]).save(folder / "one.png")
    result = run(
        "--model", f"{HERE}:lenet", "--image-shape", "1,8,8", "--images", tmp_path, "--evaluations", 5,
        "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)
    assert told["message"]["images"] == 2
    assert told["labels"]["true"] == [0, 1]


def test_targets_are_one_hot():
    system, private, _ = of(models.Pooled(), 1, 2)
    assert torch.equal(one_hot(system, private, torch.zeros(1)), F.one_hot(private.labels, 4).float()[None])

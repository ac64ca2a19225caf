"""A message of a file is the one that was sent, or is refused in a sentence; nothing of it is executed."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import models_for_tests as models
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from models_for_tests import digits, gradients, of
from torch import nn

from wdlg import audit
from wdlg.audit.files import read_tensors
from wdlg.audit.message import sharing_of
from wdlg.errors import InputError
from wdlg.sharing.defences import Pruning
from wdlg.sharing.federated import FedAvg, FedSGD


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


def test_a_square_weight_that_is_transposed_is_refused_though_its_shape_fits():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 4)
    )
    system, private, _ = of(model)
    given = gradients(model, private)
    given["3.weight"] = given["3.weight"].T.contiguous()
    with pytest.raises(InputError, match=r"has 3\.weight transposed"):
        audit.read(system, private, given, FedSGD())


def noisy(tensors, level, *, scale=1.0):
    length = sum(float(one.square().sum()) for one in tensors.values()) ** 0.5
    entries = sum(one.numel() for one in tensors.values())
    stream = torch.Generator().manual_seed(0)
    size = level * length / entries**0.5
    return {
        name: scale * (one + size * torch.randn(one.shape, generator=stream)) for name, one in tensors.items()
    }


@pytest.mark.parametrize("scale", [0.1, 4.0])
def test_a_multiple_is_refused_under_noise_too_and_noise_alone_is_not(scale):
    model = models.lenet()
    system, private, _ = of(model)
    tensors = gradients(model, private)
    audit.read(system, private, noisy(tensors, 0.5), FedSGD())
    with pytest.raises(InputError, match="times the gradient"):
        audit.read(system, private, noisy(tensors, 0.5, scale=scale), FedSGD())


def test_a_pruned_message_is_taken():
    model = models.lenet()
    system, private, message = of(model)
    pruned = message.defended(Pruning(0.9), seed=0)
    shapes = [parameter.shape for parameter in model.parameters()]
    given = [part.view(shape) for part, shape in zip(pruned.gradient.tensors(), shapes, strict=True)]
    found = audit.read(system, private, given, FedSGD())
    assert any("differs" in note for note in found.notes)


def test_zeros_of_a_frozen_layer_are_left_out():
    model = models.Pooled()
    model.body[0].requires_grad_(False)
    system, private, sent = of(model)
    given = {name: torch.zeros_like(one) for name, one in model.named_parameters()}
    model.requires_grad_(True)
    given |= {name: one for name, one in gradients(model, private).items() if not name.startswith("body.0")}
    assert audit.read(system, private, given, FedSGD()).sent == sent.sent


def test_entries_that_were_left_out_are_no_other_scale():
    """Of what is left of a gradient the best multiple is the square of the cosine."""
    model = models.lenet()
    system, private, _ = of(model)
    stream = torch.Generator().manual_seed(0)
    kept = {
        name: one * (torch.rand(one.shape, generator=stream) < 0.4)
        for name, one in gradients(model, private).items()
    }
    audit.read(system, private, kept, FedSGD())


def test_a_frozen_layer_that_was_sent_is_read():
    model = models.Pooled()
    tensors = gradients(model, digits(audit.system(model, (1, 8, 8)), 3))
    model.body[0].requires_grad_(False)
    system, private, _ = of(model)
    assert audit.read(system, private, tensors, FedSGD()).sent[:6] == (True,) * 6

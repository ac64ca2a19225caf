"""An audit recovers what its bounds say can be recovered, and tells it alike in all its forms."""

from __future__ import annotations

import json
from dataclasses import replace

import models_for_tests as models
import numpy as np
import pytest
import torch
from models_for_tests import digits, gradients, of, ordered

import wdlg
from wdlg import audit
from wdlg.audit.message import sharing_of
from wdlg.audit.report import as_object, as_page, as_text, write_page
from wdlg.audit.run import Labels, _attempt, adaptive, levenberg_marquardt, read_labels
from wdlg.errors import InputError
from wdlg.sharing.defences import Noise, Pruning
from wdlg.sharing.federated import FedSGD


def test_an_audit_recovers_what_its_bound_says_can_be_recovered_and_nothing_else():
    whole = audit.audit(*ordered(of(models.lenet())), defences=[Noise(0.01), Pruning(0.5)], evaluations=50)
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

    poor = audit.audit(*ordered(of(models.Pooled(width=2))), evaluations=50)
    assert poor.leak.rank < 64
    assert not any(one.succeeded for one in poor.attempts)
    assert poor.labels.rule == "none"


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
    labels, _ = read_labels(*ordered(of(models.Pooled())))
    assert labels.rule == "none"
    assert not labels.leaked


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


def test_who_knows_that_entries_were_pruned_does_better_than_who_does_not():
    system, private, message = of(models.lenet())
    pruned = message.defended(Pruning(0.5), seed=0)
    _, rule = read_labels(system, pruned, private)
    knowing, unknowing = (
        max(_attempt(system, pruned, private, method, 0, 0).mse)
        for method in (
            adaptive(system, pruned, private, Pruning(0.5), rule),
            levenberg_marquardt(pruned, private, rule),
        )
    )
    assert knowing < 1e-6
    assert knowing < unknowing / 100


@pytest.mark.parametrize("count", [1, 2])
def test_a_message_of_smoothed_labels_is_audited_as_that_and_as_nothing_else(count):
    model = models.lenet()
    system, private, _ = of(model, *range(3, 3 + count))
    loss = torch.nn.functional.cross_entropy(model(private.images), private.labels, label_smoothing=0.1)
    sent = torch.autograd.grad(loss, list(model.parameters()))
    kept = dict(zip(system.names, sent, strict=True))
    message = audit.read(system, private, kept, sharing_of(system, 1, None, count, 0.1))
    found = audit.audit(system, message, private, evaluations=50)
    assert found.leak.rank == 64 * count
    assert max(next(one for one in found.attempts if one.attack == "LM").mse) < 1e-9
    # A theorem on labels says nothing of smoothed ones: of several images none is claimed to be certain.
    assert found.labels.rule == ("soft_labels" if count == 1 else "none")
    assert found.labels.leaked == (count == 1)
    told = as_object(found)
    assert told["message"]["label_smoothing"] == 0.1
    assert "how labels are smoothed" in told["attacker"]["description"]
    assert told["attacker"]["sok"] == "C"
    assert "Labels are smoothed" in as_page(found)
    assert "is the gradient of these images" in message.notes[-1]
    assert "--label-smoothing" in audit.read(system, private, kept, FedSGD()).notes[-1]


@pytest.mark.parametrize("level", [0.01, 1.0, 3.0])
def test_noise_that_spoils_the_target_does_not_hide_a_smoothed_label(level):
    system, private, _ = of(models.lenet())
    message = audit.made(system, private, sharing_of(system, 1, None, 1, 0.1)).defended(Noise(level), seed=0)
    labels, _ = read_labels(system, message, private)
    assert labels.leaked
    assert labels.rule == ("soft_labels" if level < 1 else "bias_min")


def test_smoothing_is_known_from_the_target_where_the_network_is_sure():
    model = models.lenet()
    system, private, _ = of(model)
    with torch.no_grad():
        model[-1].bias.zero_()
        model[-1].bias[private.labels] = 30.0  # so sure that the label's entry is not the least
    system = audit.system(model, (1, 8, 8))
    message = audit.made(system, private, sharing_of(system, 1, None, 1, 0.2))
    assert int(message.gradient.bias.argmin()) != int(private.labels)
    labels, rule = read_labels(system, message, private)
    assert labels.leaked
    assert "0.2" in labels.note
    assert rule.labels == tuple(private.labels.tolist())


def test_images_come_back_from_a_part_of_the_layers():
    model = models.lenet()
    system, private, _ = of(model)
    part = {name: one for name, one in gradients(model, private).items() if name.startswith(("0", "2"))}
    message = audit.read(system, private, part, FedSGD(), partial=True)
    found = audit.audit(system, message, private, evaluations=5)
    assert found.leak.rank == 64
    assert max(next(one for one in found.attempts if one.attack == "LM").mse) < 1e-6


def test_several_starts_are_different_ones():
    found = audit.audit(*ordered(of(models.Pooled(width=2))), evaluations=5, starts=2)
    first, second = (one for one in found.attempts if one.attack.startswith("iDLG"))
    assert (first.start, second.start) == (0, 1)
    assert not np.allclose(first.images, second.images)


def test_wrong_labels_and_a_single_recovery_of_two_are_no_success():
    assert not Labels("bias_min", (1,), (2,), "").leaked
    assert not Labels("bias_min", (), (2,), "").leaked
    assert Labels("bias_min", (2,), (2,), "").leaked
    images = np.zeros((2, 1, 2, 2))
    assert not audit.Attempt("LM", 0, "stalled", 1, 0.0, (1e-9, 1.0), (90.0, 0.0), images).succeeded
    assert audit.Attempt("LM", 0, "stalled", 1, 0.0, (1e-9, 1e-3), (90.0, 30.0), images).succeeded


def test_the_attacker_of_several_steps_knows_more_and_a_failed_attack_is_no_protection():
    system, private, _ = of(models.lenet())
    sharing = sharing_of(system, 2, 0.1, 1)
    found = audit.audit(system, audit.made(system, private, sharing), private, evaluations=5)
    assert (as_object(found)["attacker"]["sok"], as_object(found)["message"]["local_steps"]) == ("C", 2)
    one = audit.audit(*ordered(of(models.lenet())), evaluations=5)
    assert as_object(one)["attacker"]["sok"] == "B"
    warning = "no protection: the image follows"
    assert warning not in as_text(one)
    lost = replace(one, attempts=tuple(a for a in one.attempts if a.attack.startswith("iDLG")))
    assert not lost.best.succeeded
    assert warning in as_text(lost)
    poor = audit.audit(*ordered(of(models.Pooled(width=2))), evaluations=5)
    assert warning not in as_text(poor)

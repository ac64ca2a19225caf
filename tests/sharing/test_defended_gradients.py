"""Losses, label rules, batches and studies work on what a defence really sends, no product any more."""

from dataclasses import replace

import pytest
import torch
from defended import ALL, each_defence, flat, shared, streams

from wdlg import data, losses
from wdlg.attacks import IDLG, Status, labels, reconstruct
from wdlg.errors import InputError
from wdlg.losses import euclidean
from wdlg.sharing import defences
from wdlg.sharing.defences import Noise, Pruning
from wdlg.study import Design, compare_rules, draw
from wdlg.study.records import record
from wdlg.updates import Gradient
from wdlg.updates.output_layer import Dense


def dense(ours, theirs):
    return (flat(ours) - flat(theirs)).square().sum(1)


def tracked(gradient):
    """A copy of an unprotected gradient whose parts are leaves of a graph."""
    parts = [
        part.clone().requires_grad_() for part in (*gradient.hidden, gradient.bias, gradient.output.features)
    ]
    return Gradient.of_one(tuple(parts[:-2]), *parts[-2:]), parts


@each_defence
def test_the_squared_distance_is_that_of_the_written_out_gradients(defence):
    dummy, sent = shared(3, seed=8), defence(shared(), streams(3))
    for ours, theirs in (
        (dummy, sent),
        (sent, dummy),
        (sent, sent),
        (sent, Noise(0.1)(dummy, streams(3, 7))),
    ):
        assert torch.allclose(
            losses.SquaredEuclidean()(ours, theirs), dense(ours, theirs), rtol=1e-9, atol=1e-12
        )


def with_rest(gradient, rest):
    """The gradient with something added to its output layer's product."""
    return Gradient(gradient.hidden, Dense(gradient.bias, gradient.output.features, rest))


def test_any_rest_counts_in_distance_and_norm():
    """What a defence sends has a rest without a part along the error; another one may have it."""
    generator = torch.Generator().manual_seed(1)
    plain = shared()
    rest = torch.randn(plain.last_weight.shape, generator=generator, dtype=torch.float64)
    ours, theirs = with_rest(plain, rest), shared(3, seed=8)
    assert torch.allclose(losses.SquaredEuclidean()(ours, theirs), dense(ours, theirs))
    assert torch.allclose(losses.SquaredEuclidean()(theirs, ours), dense(ours, theirs))
    assert torch.allclose(euclidean.norm(ours), flat(ours).norm(dim=1))


def test_at_the_private_image_the_squared_distance_in_float32_keeps_the_size_of_the_noise():
    exact = shared(3, torch.float32)
    sent = Noise(1e-4)(exact, streams(3))
    near = losses.SquaredEuclidean()(exact, sent).double()
    assert torch.allclose(near, dense(exact, sent).double(), rtol=1e-3)


LOSSES = {
    "squared": losses.SquaredEuclidean(),
    "euclidean": losses.Euclidean(),
    "pseudo-Huber": losses.PseudoHuber(0.1),
    "cosine": losses.Cosine(),
    "sent entries": losses.SentEntries(),
    "identity": losses.Wasserstein(penalty=float("inf")),
    "identity, relative": losses.Wasserstein(penalty=float("inf"), mass="relative"),
    "identity, tensors": losses.Wasserstein(points="tensors", root="each"),
    "rows": losses.Wasserstein(),
    "rows, exact": losses.Wasserstein(eps=0.0),
    "rows, debiased": losses.Wasserstein(eps=0.05, relative=True, value="debiased"),
    "kernels": losses.Wasserstein(points="kernels"),
    "sliced": losses.SlicedWasserstein(projections=5),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_every_loss_is_the_one_of_the_same_gradients_with_another_layer_behind(loss):
    """The output layer as a hidden one, written out, before an output layer that is zero."""

    def moved(gradient):
        hidden = (*gradient.hidden, gradient.last_weight, gradient.bias[:, :, None])
        count = len(gradient)
        return Gradient.of_one(hidden, torch.zeros(count, 2).double(), torch.zeros(count, 1).double())

    if isinstance(loss, losses.Wasserstein) and loss.points == "kernels":
        pytest.skip("the kernels' way of cutting depends on the layer's place; see the next test")
    if isinstance(loss, losses.SlicedWasserstein):
        pytest.skip("an own draw of lines for each layer; see the next test")
    sent = Noise(0.3)(shared(), streams(3))
    (direct, ours), (copy, theirs) = tracked(shared(3, seed=8)), tracked(shared(3, seed=8))
    here, there = loss(direct, sent), loss(moved(copy), moved(sent))
    assert torch.allclose(here, there, rtol=1e-6)
    slopes = [torch.autograd.grad(value.sum(), parts) for value, parts in ((here, ours), (there, theirs))]
    for one, other in zip(*slopes, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_every_loss_knows_a_rest_of_zero_for_none(loss):
    dummy, plain = shared(3, seed=8), shared()
    written = with_rest(plain, torch.zeros_like(plain.last_weight))
    assert torch.allclose(loss(dummy, written), loss(dummy, plain), rtol=1e-6)
    both = [tracked(dummy) for _ in range(2)]
    slopes = [
        torch.autograd.grad(loss(copy, target).sum(), parts)
        for (copy, parts), target in zip(both, (written, plain), strict=True)
    ]
    for ours, theirs in zip(*slopes, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    "name", [name for name in LOSSES if name not in ("rows", "rows, debiased", "kernels")]
)
def test_the_derivative_is_that_of_finite_differences(name):
    """Not for entropic plans, whose derivative holds the plan fixed by definition."""
    loss = LOSSES[name]
    dummy, sent = shared(2, seed=8), Noise(0.3)(shared(2), streams(2))
    copy, parts = tracked(dummy)
    slopes = torch.autograd.grad(loss(copy, sent).sum(), parts)
    generator = torch.Generator().manual_seed(2)
    directions = [torch.randn(part.shape, generator=generator, dtype=part.dtype) for part in parts]
    step = 1e-6

    def at(t):
        moved = [part.detach() + t * direction for part, direction in zip(parts, directions, strict=True)]
        return loss(Gradient.of_one(tuple(moved[:-2]), *moved[-2:]), sent).sum().item()

    found = sum((slope * direction).sum().item() for slope, direction in zip(slopes, directions, strict=True))
    assert found == pytest.approx((at(step) - at(-step)) / (2 * step), rel=1e-5)


def test_sent_entries_leaves_out_what_was_pruned():
    dummy, sent = shared(3, seed=8), Pruning(0.8)(shared())
    kept = flat(sent) != 0
    expected = torch.where(kept, flat(dummy) - flat(sent), 0.0).square().sum(1)
    assert torch.allclose(losses.SentEntries()(dummy, sent), expected)
    assert (
        losses.SentEntries()(shared(), sent).max() < 1e-20 < losses.SquaredEuclidean()(shared(), sent).min()
    )


@pytest.mark.parametrize("defence", [*ALL, Noise(20.0)], ids=defences.title)
def test_label_rules_read_what_is_really_sent(defence):
    sent = defence(shared(30, classes=6), streams(30))
    bias, weight = sent.tensors()[-1][:, :, 0], sent.tensors()[-2]
    assert torch.equal(labels.label_rule("bias_sign")(sent), labels.bias_sign(bias))
    assert torch.equal(labels.label_rule("bias_min")(sent), labels.bias_min(bias))
    assert torch.equal(labels.label_rule("row_sum")(sent), labels.row_sum(weight))


def test_bias_min_agrees_with_bias_sign_on_an_exact_gradient_and_outlasts_it_under_noise():
    exact = shared(60)
    truth = torch.arange(60) % 6
    assert torch.equal(labels.label_rule("bias_min")(exact), labels.label_rule("bias_sign")(exact))
    sent = Noise(1.0)(exact, streams(60))
    right = {rule: (labels.label_rule(rule)(sent) == truth).sum().item() for rule in labels.ANALYTIC}
    assert right["bias_sign"] < right["bias_min"]
    assert labels.bias_min(torch.zeros(1, 4)).tolist() == [labels.UNDECIDED]


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_pruning_never_takes_the_label_from_the_bias(share):
    sent = Pruning(share)(shared(60, classes=30))
    assert torch.equal(labels.label_rule("bias_sign")(sent), torch.arange(60) % 30)


def test_gradients_of_two_kinds_do_not_share_a_batch():
    with pytest.raises(InputError, match="^gradient has output layers of the kinds Dense and Product, but"):
        Gradient.join([shared(), Noise(0.1)(shared(), streams(3))])


# Studies


def cases(defence, **design):
    return draw(data.load("digits"), Design(networks=4, images=2, seed=9, defence=defence, **design))


def test_a_case_has_the_same_noise_alone_in_a_larger_study_and_at_another_strength():
    weak, strong = cases(Noise(0.01)), cases(Noise(1.0))
    exact = flat(weak.exact().gradient)
    noise = flat(weak.observation().gradient) - exact
    assert torch.allclose(100 * noise, flat(strong.observation().gradient) - exact, atol=2e-3)
    one = weak.select(torch.tensor([5]))
    assert torch.allclose(flat(one.observation().gradient), (exact + noise)[5:6], atol=1e-6)
    later = draw(
        data.load("digits"), Design(networks=1, images=2, seed=9, first_network=2, defence=Noise(0.01))
    )
    assert torch.allclose(flat(later.observation().gradient), (exact + noise)[4:6], atol=1e-6)
    assert not torch.allclose(noise[0], noise[1], atol=1e-3)


def test_records_say_what_the_defence_costs_and_what_loss_the_private_image_has():
    drawn = cases(Noise(0.05))
    rows, _, _ = record(drawn, replace(IDLG, evaluations=3), batch_size=8)
    sent, exact = drawn.observation().gradient, drawn.exact().gradient
    assert rows["relative_error"].to_numpy() == pytest.approx(defences.relative_error(sent, exact).numpy())
    assert rows["cosine"].between(0.99, 1).all()
    assert rows["loss_at_truth"].to_numpy() == pytest.approx(dense(exact, sent).numpy(), rel=1e-3)
    plain, _, _ = record(cases(None), replace(IDLG, evaluations=3), batch_size=8)
    assert "relative_error" not in plain
    assert (plain["loss_at_truth"] == 0).all()


def test_an_attack_whose_rule_finds_no_label_in_the_noise_ends_undecided_and_one_with_bias_min_runs():
    drawn = cases(Noise(3.0))
    seen = drawn.observation()
    for rule, begins in (("bias_sign", False), ("bias_min", True)):
        attack = replace(IDLG, label_rule=rule, evaluations=2)
        result = reconstruct(attack, seen, drawn.dummy_images)
        assert ((result.status != Status.UNDECIDED).float().mean() > 0.5) == begins


def test_attacks_on_defended_gradients_do_not_depend_on_their_neighbours():
    drawn = cases(Noise(1e-3))
    attack = replace(IDLG, evaluations=40)
    together = reconstruct(attack, drawn.observation(), drawn.dummy_images, batch_size=3)
    one = drawn.select(torch.tensor([6]))
    alone = reconstruct(attack, one.observation(), one.dummy_images)
    assert torch.allclose(together.loss_trace[6, :5], alone.loss_trace[0, :5], rtol=1e-4)


def test_rules_are_compared_on_defended_gradients():
    table = compare_rules(
        data.load("digits"), images=20, seed=2, rules=labels.ANALYTIC, defence=Noise(0.5)
    ).set_index("rule")
    assert table.loc["bias_sign", "correct"].mean() < table.loc["row_sum", "correct"].mean()
    assert table["relative_error"].between(0.45, 0.55).all()
    plain = compare_rules(data.load("digits"), images=2, seed=2)
    assert set(plain["rule"]) == {"bias_sign", "row_sum"}
    assert "relative_error" not in plain

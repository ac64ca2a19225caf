"""Attacks of other kinds than DLG's: priors and limits of pixels, several attempts, and a closed form."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from wdlg.attacks import (
    IDLG,
    Attack,
    Observation,
    Optimised,
    Reconstruction,
    Start,
    Status,
    reconstruct,
    reconstruct_each,
)
from wdlg.attacks.closed_form import FirstLayer
from wdlg.attacks.labels import UNDECIDED, BiasSign
from wdlg.attacks.priors import Box, TotalVariation
from wdlg.attacks.restarts import Restarts
from wdlg.errors import InputError
from wdlg.losses import Cosine, SquaredEuclidean
from wdlg.networks import LeNet, ModuleNetwork
from wdlg.optimizers import LBFGS, Adam, GradientDescent

NETWORK = LeNet((1, 8, 8), 4)
DESCENT = Optimised("descent", BiasSign(), optimizer=GradientDescent(0.05), evaluations=12, stop_loss=1e-300)


def setting(attacks=3, seed=0):
    """Private images, what an attacker sees of them, and dummies."""
    stream = torch.Generator().manual_seed(seed)
    parameters = NETWORK.initial_parameters(attacks, generator=stream, dtype=torch.float64)
    truth = torch.rand(attacks, 1, 8, 8, generator=stream, dtype=torch.float64)
    target = F.one_hot(torch.arange(attacks) % 4, 4).double()
    observation = Observation(NETWORK, parameters, NETWORK.gradient(parameters, truth, target).detach())
    return truth, observation, torch.randn(attacks, 1, 8, 8, generator=stream, dtype=torch.float64)


# Priors and projections


def test_total_variation_is_the_mean_difference_of_neighbours():
    images = torch.tensor([[[[0.0, 1.0, 3.0], [0.0, 0.0, 0.0]]], [[[1.0] * 3] * 2]])
    # Down: 0, 1, 3. Across: 1, 2 and 0, 0.
    assert TotalVariation(2.0)(images).tolist() == pytest.approx([2 * (4 / 3 + 3 / 4), 0.0])
    assert torch.equal(TotalVariation(1.0)(images[:, None]), TotalVariation(1.0)(images))


def test_a_prior_is_a_part_of_the_loss_and_of_its_slope():
    _, observation, dummies = setting()
    prior = TotalVariation(0.3)
    result = reconstruct(replace(DESCENT, priors=[prior], evaluations=2), observation, dummies)
    leaf = dummies.clone().requires_grad_()
    target = F.one_hot(torch.arange(3), 4).double()
    dummy = NETWORK.gradient(observation.parameters, leaf, target)
    loss = SquaredEuclidean()(dummy, observation.gradient) + prior(leaf)
    torch.testing.assert_close(result.loss_trace[:, 0], loss.detach())
    (slope,) = torch.autograd.grad(loss.sum(), leaf)
    torch.testing.assert_close(result.images, dummies - 0.05 * slope)


def test_a_box_holds_every_image_after_its_first_move():
    _, observation, dummies = setting()
    seen = []
    attack = replace(DESCENT, projection=Box(0.2, 0.6))
    reconstruct(attack, observation, dummies, observers=[lambda *what: seen.append(what[3].clone())])
    assert torch.equal(seen[0], dummies)
    for images in seen[1:]:
        assert images.min() >= 0.2
        assert images.max() <= 0.6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"priors": TotalVariation(1.0)}, "^priors is "),
        ({"priors": (TotalVariation,)}, "^priors is "),
        ({"projection": Box}, "^projection is "),
        (
            {"projection": Box(), "optimizer": LBFGS()},
            r"^projection is Box\(low=0.0, high=1.0\), but must be None",
        ),
        ({"label_rule": BiasSign}, "^label_rule is "),
    ],
)
def test_what_does_not_go_into_an_attack_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        replace(DESCENT, **changes)


def test_settings_of_priors_are_checked():
    with pytest.raises(InputError, match="^weight is 0"):
        TotalVariation(0)
    with pytest.raises(InputError, match="^low is 1, but must be below high, 0"):
        Box(1, 0)
    for limits, message in (
        ((float("nan"), 1), "^low is nan"),
        ((0, "b"), "^high is 'b'"),
        ((None, 1), "^low is None"),
    ):
        with pytest.raises(InputError, match=message):
            Box(*limits)
    for images in (torch.zeros(3), torch.zeros(1, 1, 3, 3, dtype=torch.long), "images"):
        with pytest.raises(InputError, match="^images is .*, but must be a floating-point tensor"):
            TotalVariation(1.0)(images)
    with pytest.raises(InputError, match="^images are 1 x 5"):
        TotalVariation(1.0)(torch.zeros(1, 1, 1, 5))


# Adam of Geiping et al.


def test_signed_adam_with_milestones_is_that_of_torch():
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = Adam(0.3, signed=True, milestones=(2, 4), decay=0.1)
    state = ours.init(x)
    leaf = x.clone().requires_grad_()
    theirs = torch.optim.Adam([leaf], lr=0.3)
    schedule = torch.optim.lr_scheduler.MultiStepLR(theirs, milestones=[2, 4], gamma=0.1)
    for _ in range(7):
        state = ours.update(state, state.x.square().sum(1), 2 * state.x)
        leaf.grad = (2 * leaf.detach()).sign()
        theirs.step()
        schedule.step()
        torch.testing.assert_close(state.x, leaf.detach())


@pytest.mark.parametrize("setting", [{"signed": 1}, {"milestones": 3}, {"milestones": (0,)}, {"decay": 0.0}])
def test_settings_of_signed_adam_are_checked(setting):
    with pytest.raises(InputError, match=f"^{next(iter(setting))} is "):
        Adam(**setting)


# Restarts


def test_of_several_attempts_the_one_of_least_loss_counts():
    _, observation, dummies = setting()
    tried = Restarts(DESCENT, 3, seed=5)
    assert isinstance(tried, Attack)
    traces = torch.full((3, tried.evaluations), torch.nan, dtype=torch.float64)

    def watch(attacks, evaluations, iterations, images, loss):
        traces[attacks, evaluations] = loss
        assert torch.equal(iterations, evaluations)

    result = reconstruct(tried, observation, dummies, observers=[watch])
    single = reconstruct(DESCENT, observation, dummies)
    assert torch.equal(result.loss_trace[:, :12], single.loss_trace)
    assert torch.equal(result.loss_trace, traces)
    assert torch.equal(result.best_loss, traces.amin(1))
    assert result.evaluations.tolist() == [36] * 3
    assert result.iteration_trace[0].tolist() == list(range(36))
    assert torch.equal(result.first_loss, single.first_loss)
    assert not torch.equal(result.best_loss, single.best_loss)


def test_an_attempt_that_ends_early_leaves_no_hole_in_the_traces():
    _, observation, dummies = setting()
    limit = reconstruct(DESCENT, observation, dummies).loss_trace[0, 5].item()
    result = reconstruct(Restarts(replace(DESCENT, stop_loss=limit), 2), observation, dummies)
    for made, trace in zip(result.evaluations.tolist(), result.loss_trace, strict=True):
        assert torch.isfinite(trace[:made]).all()
        assert torch.isnan(trace[made:]).all()
    assert result.evaluations.min() < 24


def test_new_dummies_do_not_depend_on_the_batch():
    _, observation, dummies = setting()
    tried = Restarts(DESCENT, 2)
    whole = reconstruct(tried, observation, dummies)
    start = Start(observation, dummies)
    parts = [start.select(torch.tensor([0])), start.select(torch.tensor([1, 2]))]
    for number, result in reconstruct_each(tried, parts):
        torch.testing.assert_close(result.loss_trace, whole.loss_trace[number])


def test_attempts_that_the_user_stops_bring_what_there_is():
    _, observation, dummies = setting()

    def stop(attacks, evaluations, *_):
        if evaluations.max() == 15:
            raise KeyboardInterrupt

    result = reconstruct(Restarts(DESCENT, 3), observation, dummies, observers=[stop])
    assert result.interrupted
    assert result.evaluations.tolist() == [15] * 3
    assert torch.isfinite(result.loss_trace[:, :15]).all()
    assert result.loss_trace.shape == (3, 36)
    assert torch.isnan(result.loss_trace[:, 15:]).all()


def test_every_attempt_has_dummies_of_its_own_whatever_their_number_and_the_seed():
    _, observation, dummies = setting()
    tried = Restarts(DESCENT, 300, seed=2**70)
    start = Start(observation, dummies)
    drawn = [tried._fresh(start, 0, attempt).dummy_images for attempt in (1, 2, 255, 256, 257, 299)]
    rows = torch.cat(drawn).flatten(1)
    assert len(rows.unique(dim=0)) == len(rows)


def test_only_an_attack_with_a_loss_is_tried_again():
    for stranger in (FirstLayer(), "iDLG"):
        with pytest.raises(InputError, match="^attack is "):
            Restarts(stranger, 2)


# A closed form


def linear_first(image_shape=(1, 8, 8), classes=4, *, bias=True):
    torch.manual_seed(0)
    pixels = image_shape[0] * image_shape[1] * image_shape[2]
    first = nn.Linear(pixels, 16, bias=bias)
    return ModuleNetwork(nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Linear(16, classes)), image_shape)


def test_a_linear_first_layer_gives_its_input_away():
    network = linear_first()
    truth = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    target = torch.eye(4)[[2, 0, 3]]
    observation = Observation(
        network, network.parameters(), network.gradient(network.parameters(), truth, target)
    )
    seen = []
    result = reconstruct(
        FirstLayer(), observation, torch.zeros(3, 1, 8, 8), observers=[lambda *w: seen.append(w)]
    )
    torch.testing.assert_close(result.images, truth, rtol=1e-4, atol=1e-5)
    assert result.labels.tolist() == [2, 0, 3]
    assert (result.status == Status.CONVERGED).all()
    [(numbers, *_)] = seen
    assert numbers.tolist() == [0, 1, 2]


def test_a_layer_that_saw_nothing_gives_nothing():
    network = linear_first()
    parameters = network.parameters()
    dead = replace(
        parameters, tensors=(*parameters.tensors[:1], parameters.tensors[1] - 100, *parameters.tensors[2:])
    )
    gradient = network.gradient(dead, torch.rand(1, 1, 8, 8), torch.eye(4)[:1])
    result = reconstruct(FirstLayer(), Observation(network, dead, gradient), torch.zeros(1, 1, 8, 8))
    assert result.status.tolist() == [Status.NON_FINITE]
    assert result.labels.tolist() in ([0], [UNDECIDED])


def test_a_first_layer_of_another_kind_is_refused():
    _, observation, dummies = setting()
    with pytest.raises(InputError, match=r"^network has first parameters of shapes \(12, 25\) and \(12,\)"):
        reconstruct(FirstLayer(), observation, dummies)
    network = linear_first(bias=False)
    gradient = network.gradient(network.parameters(), torch.rand(1, 1, 8, 8), torch.eye(4)[:1])
    with pytest.raises(InputError, match="^network has first parameters"):
        reconstruct(
            FirstLayer(), Observation(network, network.parameters(), gradient), torch.zeros(1, 1, 8, 8)
        )
    with pytest.raises(InputError, match="^label_rule is joint"):
        FirstLayer("joint")
    with pytest.raises(InputError, match="^name is 3"):
        FirstLayer(name=3)


def test_every_kind_is_an_attack():
    for attack in (IDLG, FirstLayer(), Restarts(IDLG, 2), replace(DESCENT, loss=Cosine())):
        assert isinstance(attack, Attack)


def test_what_an_attack_computed_at_once_says_how_it_ended():
    images = torch.zeros(4, 2, 1, 3, 3)
    images[1, 1, 0, 0, 0] = torch.nan
    labels = torch.tensor([[0, 1], [0, 1], [UNDECIDED, UNDECIDED], [2, 3]])
    loss = torch.tensor([1.0, 2.0, 3.0, 4.0])
    result = Reconstruction.at_once(images, labels, loss=loss, seconds=2.0)
    assert [Status(code).name for code in result.status.tolist()] == [
        *("CONVERGED", "NON_FINITE", "UNDECIDED", "CONVERGED"),
    ]
    assert torch.equal(result.loss_trace[:, 0], loss)
    assert result.evaluations.tolist() == [1] * 4
    assert result.seconds.tolist() == [0.5] * 4
    assert torch.isnan(Reconstruction.at_once(images, labels).loss).all()

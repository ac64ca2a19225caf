"""The attack loop: what the attacker sees, how runs end, and that runs do not influence each other.

Two ways to the same result are compared over a few evaluations only: without a line search, a run may amplify
rounding (1e-16) to anything later on.
"""

import dataclasses
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from wdlg.attacks import DLG, IDLG, METHODS, WDLG, Observation, Status, labels, reconstruct, with_settings
from wdlg.errors import InputError
from wdlg.losses import Euclidean, SquaredEuclidean, Wasserstein
from wdlg.networks import LeNet
from wdlg.optimizers import LBFGS, Adam, GradientDescent

NETWORK = LeNet((1, 8, 8), 4)


def setting(attacks, *, seed=0, dtype=torch.float64, shared=False, bound=0.5):
    """Truth, labels, observation and dummies of some attacks."""
    generator = torch.Generator().manual_seed(seed)
    parameters = NETWORK.initial_parameters(
        1 if shared else attacks, generator=generator, dtype=dtype, bound=bound
    )
    truth = torch.rand(attacks, 1, 8, 8, generator=generator, dtype=dtype)
    label = torch.arange(attacks) % 4
    gradient = NETWORK.gradient(parameters, truth, F.one_hot(label, 4).to(dtype))
    dummies = torch.randn(attacks, 1, 8, 8, generator=generator, dtype=dtype)
    logits = torch.randn(attacks, 4, generator=generator, dtype=dtype)
    return truth, label, Observation(NETWORK, parameters, gradient), dummies, logits


def test_idlg_recovers_images_and_labels_of_the_lenet():
    truth, label, observation, dummies, _ = setting(8)
    result = reconstruct(replace(IDLG, evaluations=800), observation, dummies)
    errors = (result.images - truth).square().flatten(1).mean(1)
    assert torch.equal(result.labels, label)
    assert (errors < 1e-2).sum() >= 6
    converged = result.status == Status.CONVERGED
    assert (result.loss[converged] < IDLG.stop_loss).all()


def test_dlg_recovers_the_label_together_with_the_image():
    truth, label, observation, dummies, logits = setting(8)
    result = reconstruct(replace(DLG, evaluations=800), observation, dummies, logits)
    good = (result.images - truth).square().flatten(1).mean(1) < 1e-3
    assert good.sum() >= 4
    assert torch.equal(result.labels[good], label[good])


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_an_attack_alone_and_among_others_ends_at_the_same_place(method):
    _, _, observation, dummies, logits = setting(9)
    attack = replace(method, evaluations=15)
    together = reconstruct(attack, observation, dummies, logits)
    alone = reconstruct(attack, observation.select(torch.tensor([4])), dummies[4:5], logits[4:5])
    torch.testing.assert_close(together.images[4:5], alone.images, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(together.loss_trace[4:5], alone.loss_trace, rtol=1e-6, atol=1e-8)


def test_the_size_of_the_batch_changes_no_result():
    _, _, observation, dummies, _ = setting(7)
    attack = replace(IDLG, evaluations=15)
    whole = reconstruct(attack, observation, dummies)
    parts = reconstruct(attack, observation, dummies, batch_size=3)
    torch.testing.assert_close(whole.images, parts.images, rtol=1e-6, atol=1e-8)
    assert torch.equal(whole.evaluations, parts.evaluations)


def test_a_network_shared_by_all_attacks_equals_a_copy_for_each():
    _, _, observation, dummies, _ = setting(3, shared=True)
    copies = replace(observation, parameters=observation.parameters.select(torch.tensor([0, 0, 0])))
    attack = replace(IDLG, evaluations=15)
    torch.testing.assert_close(
        reconstruct(attack, observation, dummies).images,
        reconstruct(attack, copies, dummies).images,
        rtol=1e-6,
        atol=1e-8,
    )


@pytest.mark.parametrize("loss", [SquaredEuclidean(), Euclidean(), Wasserstein()], ids=type)
@pytest.mark.parametrize(
    "optimizer", [LBFGS(), GradientDescent(learning_rate=0.05), Adam()], ids=lambda one: type(one).__name__
)
def test_every_loss_with_every_optimiser_lowers_the_loss(loss, optimizer):
    _, _, observation, dummies, _ = setting(4)
    attack = replace(IDLG, loss=loss, optimizer=optimizer, evaluations=40)
    result = reconstruct(attack, observation, dummies)
    assert (result.best_loss < result.first_loss).all()


def test_traces_tell_evaluations_and_iterations():
    _, _, observation, dummies, _ = setting(5)
    result = reconstruct(replace(IDLG, evaluations=100), observation, dummies)
    for attack in range(5):
        made = int(result.evaluations[attack])
        assert torch.isfinite(result.loss_trace[attack, :made]).all()
        assert torch.isnan(result.loss_trace[attack, made:]).all()
        assert (result.iteration_trace[attack, made:] == -1).all()
        steps = result.iteration_trace[attack, :made].diff()
        assert ((steps == 0) | (steps == 1)).all()
        assert result.loss[attack] == result.loss_trace[attack, made - 1]
        assert result.best_loss[attack] == result.loss_trace[attack, :made].min()


def test_a_label_that_is_undecided_ends_the_attack_before_it_starts():
    _, _, observation, dummies, _ = setting(2)
    nothing = observation.gradient.bias * torch.tensor([[0.0], [1.0]])
    nothing = replace(observation.gradient, output=replace(observation.gradient.output, error=nothing))
    result = reconstruct(replace(WDLG, evaluations=5), replace(observation, gradient=nothing), dummies)
    assert result.status[0] == Status.UNDECIDED
    assert result.labels[0] == labels.UNDECIDED
    assert result.evaluations.tolist() == [0, 5]


def test_runs_that_leave_the_finite_numbers_are_kept_and_leave_others_alone():
    _, _, observation, dummies, _ = setting(2)
    dummies[0, 0, 0, 0] = torch.inf
    attack = replace(IDLG, optimizer=GradientDescent(learning_rate=0.01), evaluations=20)
    result = reconstruct(attack, observation, dummies)
    assert result.status[0] == Status.NON_FINITE
    assert result.status[1] == Status.BUDGET_SPENT
    assert torch.isfinite(result.images[1]).all()


def test_a_diverging_run_is_given_up():
    _, _, observation, dummies, _ = setting(1)

    class Worse(SquaredEuclidean):
        factor = 1.0

        def __call__(self, dummy, shared):
            Worse.factor *= 100.0
            return super().__call__(dummy, shared) * Worse.factor

    result = reconstruct(replace(IDLG, loss=Worse(), evaluations=50), observation, dummies)
    assert result.status[0] == Status.DIVERGED


def test_ctrl_c_keeps_what_there_is():
    _, _, observation, dummies, _ = setting(3)

    def stop(attacks, evaluations, iterations, images, loss):
        if evaluations.max() == 7:
            raise KeyboardInterrupt

    result = reconstruct(IDLG, observation, dummies, observers=[stop])
    assert result.interrupted
    assert result.evaluations.tolist() == [7, 7, 7]
    assert (result.loss_trace.isfinite().sum(1) == 7).all()
    assert torch.isfinite(result.loss).all()


def test_the_attacker_is_shown_the_gradient_what_it_was_taken_of_and_how_and_nothing_else():
    fields = {field.name for field in dataclasses.fields(Observation)}
    assert fields == {"network", "parameters", "gradient", "sharing", "images"}


def test_observers_cannot_change_the_attack():
    _, _, observation, dummies, _ = setting(2)
    seen = []
    attack = replace(IDLG, evaluations=30)
    watched = reconstruct(
        attack, observation, dummies, observers=[lambda *what: seen.append(int(what[1].max()))]
    )
    assert seen == list(range(30))
    assert torch.equal(watched.images, reconstruct(attack, observation, dummies).images)


def test_the_same_start_gives_the_same_numbers():
    _, _, observation, dummies, logits = setting(3, dtype=torch.float32)
    attack = replace(DLG, evaluations=50)
    first, second = (reconstruct(attack, observation, dummies, logits) for _ in range(2))
    assert torch.equal(first.images, second.images)


def test_every_status_has_a_meaning():
    assert all(status.meaning for status in Status)


def test_impossible_settings_are_refused_by_name():
    with pytest.raises(InputError, match="^label_rule is 'guess'"):
        replace(IDLG, label_rule="guess")
    with pytest.raises(InputError, match="^evaluations is 0"):
        with_settings(IDLG, evaluations=0)
    with pytest.raises(InputError, match="^learning_rate is -1"):
        with_settings(IDLG, learning_rate=-1)
    with pytest.raises(InputError, match="^stop_loss is nan"):
        replace(IDLG, stop_loss=float("nan"))


def test_dummies_and_gradients_that_do_not_fit_are_refused_by_name():
    _, _, observation, dummies, _ = setting(2)
    with pytest.raises(InputError, match=r"^dummy_images is a float64 tensor of shape \(1, "):
        reconstruct(IDLG, observation, dummies[:1])
    with pytest.raises(InputError, match="^dummy_labels is missing"):
        reconstruct(DLG, observation, dummies)
    with pytest.raises(InputError, match=r"^parameters has a tensor of shape \(2, 4, 48\)"):
        replace(observation, network=LeNet((1, 8, 8), 5))
    broken = observation.gradient.output
    broken = replace(observation.gradient, output=replace(broken, error=broken.error * torch.nan))
    with pytest.raises(InputError, match="NaN or infinite"):
        replace(observation, gradient=broken)

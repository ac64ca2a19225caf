"""Compiled code computes what torch computes, and is taken only where it fits."""

import os
import pickle
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numba
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core import event
from numba.core.registry import CPUDispatcher as Dispatcher
from threadpoolctl import threadpool_info

from wdlg import compiled
from wdlg.attacks import IDLG, Observation, Start, engine, reconstruct
from wdlg.attacks.objective import Objective
from wdlg.losses import SquaredEuclidean
from wdlg.losses.sinkhorn import sinkhorn_plan, unrolled_sinkhorn_plan
from wdlg.networks import ACTIVATIONS, LeNet
from wdlg.networks.output_layer import HAS_ONEDNN, OutputLayer
from wdlg.optimizers import LBFGS, GradientDescent
from wdlg.updates import Gradient
from wdlg.updates.distance import squared_euclidean

# Rounding of sums of some hundred terms in other orders; single precision has 6e-8 for one term.
CLOSE = {torch.float64: {"rtol": 1e-9, "atol": 1e-11}, torch.float32: {"rtol": 2e-4, "atol": 2e-5}}


def passes(network, *, attacks, shared, dtype, seed=0):
    """Everything that comes out of both passes, for a loss that weighs each output differently."""
    stream = torch.Generator().manual_seed(seed)
    parameters = network.initial_parameters(1 if shared else attacks, generator=stream, dtype=dtype)
    images = torch.rand(attacks, *network.image_shape, generator=stream, dtype=dtype).requires_grad_()
    target = torch.rand(attacks, network.classes, generator=stream, dtype=dtype).softmax(-1).requires_grad_()
    gradient = network.gradient(parameters, images, target)
    outputs = [*gradient.hidden, gradient.bias, gradient.output.features]
    weighed = [
        (output * torch.randn(output.shape, generator=stream, dtype=dtype)).sum() for output in outputs
    ]
    return [*outputs, *torch.autograd.grad(sum(weighed), (images, target))]


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("image_shape", [(3, 32, 32), (1, 25, 25), (2, 9, 14), (1, 1, 1)])
def test_both_passes_bring_what_torch_brings(image_shape, shared, activation, dtype):
    network = LeNet(image_shape, 7, activation)
    ours = passes(network, attacks=3, shared=shared, dtype=dtype)
    with compiled.turned_off():
        theirs = passes(network, attacks=3, shared=shared, dtype=dtype)
    for mine, other in zip(ours, theirs, strict=True):
        scale = other.detach().abs().max().clamp_min(1.0)
        torch.testing.assert_close(mine / scale, other / scale, **CLOSE[dtype])


def test_compiled_code_is_taken_where_it_fits_and_nowhere_else(monkeypatch):
    calls = []
    read = compiled.as_array
    monkeypatch.setattr(
        "wdlg.networks.compiled_pass.as_array", lambda given: (calls.append(1), read(given))[1]
    )
    network = LeNet((1, 8, 8), 4)
    passes(network, attacks=2, shared=False, dtype=torch.float32)
    assert calls
    calls.clear()
    passes(network, attacks=2, shared=False, dtype=torch.bfloat16)
    with compiled.turned_off():
        passes(network, attacks=2, shared=False, dtype=torch.float32)
    assert not calls
    assert not compiled.fits(torch.zeros(1), torch.zeros(1, dtype=torch.float64))
    assert not compiled.fits(torch.zeros(1, device="meta"))


@pytest.mark.parametrize("dtype", CLOSE)
def test_the_squared_distance_and_its_derivatives_are_those_of_torch(dtype):
    stream = torch.Generator().manual_seed(0)
    network = LeNet((1, 8, 8), 4)
    target = F.one_hot(torch.arange(3), 4).to(dtype)
    parameters = network.initial_parameters(3, generator=stream, dtype=dtype)
    one, two = (
        network.gradient(parameters, torch.rand(3, 1, 8, 8, generator=stream, dtype=dtype), target)
        for _ in range(2)
    )

    def loss_and_derivatives():
        mine, other = (
            replace(gradient, hidden=tuple(part.clone().requires_grad_() for part in gradient.hidden))
            for gradient in (one, two)
        )
        loss = SquaredEuclidean()(mine, other)
        weighed = (loss * torch.arange(1, 4)).sum()
        return [loss, *torch.autograd.grad(weighed, [*mine.hidden, *other.hidden])]

    ours = loss_and_derivatives()
    with compiled.turned_off():
        theirs = loss_and_derivatives()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, **CLOSE[dtype])


@pytest.mark.parametrize("place", range(3))
def test_a_distance_that_is_infinite_in_one_parameter_is_infinite_and_a_number(place):
    def gradient(value):
        hidden = [torch.zeros(2, 3, 4) for _ in range(3)]
        hidden[place][0] = value
        return Gradient.of_one(tuple(hidden), torch.zeros(2, 2), torch.zeros(2, 2))

    loss = SquaredEuclidean()(gradient(1e30), gradient(0.0))
    assert loss.tolist() == [torch.inf, 0]


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize(("attacks", "classes", "features"), [(1, 100, 768), (3, 10, 588), (2, 2, 1)])
def test_the_distance_of_products_is_to_the_bit_what_torchs_operations_bring(
    attacks, classes, features, dtype
):
    """They are used where the shared gradient is differentiated, too."""
    stream = torch.Generator().manual_seed(0)
    shapes = ((attacks, 3, 4), (attacks, 3, 1), (attacks, classes), (attacks, features))
    ours, theirs = ([torch.randn(shape, generator=stream, dtype=dtype) for shape in shapes] for _ in range(2))
    weights = torch.rand(attacks, generator=stream, dtype=dtype)

    def loss_and_derivatives(differentiated):
        leaves = [part.clone().requires_grad_() for part in ours]
        constants = [part.clone().requires_grad_(differentiated) for part in theirs]
        one, other = (Gradient.of_one(tuple(parts[:2]), *parts[2:]) for parts in (leaves, constants))
        loss = SquaredEuclidean()(one, other)
        return [loss, *torch.autograd.grad((weights * loss).sum(), leaves)]

    for mine, torchs in zip(loss_and_derivatives(False), loss_and_derivatives(True), strict=True):
        assert torch.equal(mine, torchs)
    with compiled.turned_off():
        plain = loss_and_derivatives(False)
    for mine, other in zip(loss_and_derivatives(False), plain, strict=True):
        torch.testing.assert_close(mine, other, **CLOSE[dtype])


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize(("attacks", "shared"), [(1, True), (3, True), (3, False)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_objective_without_autograd_is_to_the_bit_that_of_autograd(activation, attacks, shared, dtype):
    network, stream = LeNet((3, 9, 14), 7, activation), torch.Generator().manual_seed(3)
    parameters = network.initial_parameters(1 if shared else attacks, generator=stream, dtype=dtype)
    images, x = (torch.rand(attacks, 378, generator=stream, dtype=dtype) for _ in range(2))
    target = F.one_hot(torch.arange(attacks), 7).to(dtype)
    gradient = network.gradient(parameters, images.view(-1, 3, 9, 14), target)
    seen = Observation(network, parameters, gradient)
    found = []
    for loss in (SquaredEuclidean(), squared_euclidean):
        objective = Objective(seen, IDLG.label_rule, loss)
        assert objective._has_compiled_form(gradient, x) == isinstance(loss, SquaredEuclidean)
        found.append(objective(x, target, parameters, gradient))
    for mine, other in zip(*found, strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize(("classes", "features"), [(100, 768), (10, 48), (1025, 513), (2, 1)])
def test_one_row_times_a_shared_matrix_is_the_product(classes, features):
    stream = torch.Generator().manual_seed(0)
    layer = OutputLayer(torch.randn(1, classes, features, generator=stream), torch.zeros(1, classes))
    matrix = layer.weights[0].double()
    up, down = torch.randn(1, features, generator=stream), torch.randn(1, classes, generator=stream)
    close = {"rtol": 1e-5, "atol": 1e-4}
    torch.testing.assert_close(layer.times_transposed(up).double(), up.double() @ matrix.T, **close)
    torch.testing.assert_close(layer.times(down).double(), down.double() @ matrix, **close)


@pytest.mark.skipif(
    not HAS_ONEDNN or torch.backends.cpu.get_cpu_capability() != "AVX512",
    reason="oneDNN adds up in another order on other processors",
)
@pytest.mark.parametrize(("classes", "features"), [(100, 768), (10, 588), (1025, 513)])
def test_one_row_times_a_shared_matrix_is_to_the_bit_what_onednn_brings(classes, features):
    stream = torch.Generator().manual_seed(0)
    layer = OutputLayer(torch.randn(1, classes, features, generator=stream), torch.zeros(1, classes))
    up, down = torch.randn(1, features, generator=stream), torch.randn(1, classes, generator=stream)
    ours = layer.times_transposed(up), layer.times(down)
    with compiled.turned_off():
        theirs = layer.times_transposed(up), layer.times(down)
    assert all(map(torch.equal, ours, theirs))


def test_scores_of_a_shared_network_can_be_differentiated():
    network, stream = LeNet((1, 8, 8), 4), torch.Generator().manual_seed(0)
    parameters = network.initial_parameters(generator=stream)
    for attacks in (1, 2):
        images = torch.rand(attacks, 1, 8, 8, generator=stream).requires_grad_()
        weights = torch.randn(attacks, 4, generator=stream)
        ours, theirs = (
            torch.autograd.grad((weights * scores).sum(), images)[0]
            for scores in (network.logits(parameters, images), network.as_module(parameters)(images))
        )
        torch.testing.assert_close(ours, theirs)


def bumps(x):
    """A function whose second derivative changes its sign, so that some pairs are not remembered."""
    return (torch.sin(2 * x).sum(1) + 0.1 * x.square().sum(1)), 2 * torch.cos(2 * x) + 0.2 * x


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 14), st.integers(1, 14), st.sampled_from([0.1, 1.0, 10.0, 1e3]))
def test_sinkhorns_iterations_stop_where_and_as_those_of_torch(seed, n, m, scale):
    stream = torch.Generator().manual_seed(seed)
    cost = scale * torch.rand(5, n, m, generator=stream, dtype=torch.float64) ** 3
    ours = sinkhorn_plan(cost)
    with compiled.turned_off():
        theirs = sinkhorn_plan(cost)
    # An exponent of scale / eps is known to so many units in the last place.
    torch.testing.assert_close(ours, theirs, rtol=1e-9 + 1e-14 * scale / 0.1, atol=1e-12)
    single = {"max_iterations": 37, "threshold": 1e-300}
    close = {"rtol": 2e-4 + 1e-6 * scale / 0.1, "atol": 1e-6}
    torch.testing.assert_close(
        sinkhorn_plan(cost.float(), **single), sinkhorn_plan(cost, **single).float(), **close
    )


@pytest.mark.parametrize("by_torch", [False, True])
@pytest.mark.parametrize(("n", "gap", "iterations"), [(200, 10.0, 10), (3, 6.0, 100)])
def test_what_was_too_small_for_the_kernel_comes_back_when_scalings_have_grown(n, gap, iterations, by_torch):
    """All rows are near the first column, and only the first row is near the others.

    Scalings then grow by the number of points in each iteration, and entries of the kernel that single
    precision holds for zero come to decide the plan: within one round among 200 points, in many among 3.
    """
    cost = torch.zeros(1, n, n, dtype=torch.float64)
    cost[:, :, 1:] += gap
    cost[:, 1:, 1:] += gap
    assert torch.exp(-cost.float() / 0.1).min() == 0
    with compiled.turned_off() if by_torch else nullcontext():
        plan = sinkhorn_plan(cost.float(), max_iterations=iterations, threshold=1e-300)
    exact = unrolled_sinkhorn_plan(cost, max_iterations=iterations)
    assert (plan - exact).abs().sum() < 1e-4  # of a mass of 1


@pytest.mark.parametrize("history", [3, 100])
def test_lbfgs_can_go_over_from_torch_to_compiled_code_and_back(history):
    optimizer = LBFGS(learning_rate=0.2, history=history, inner_iterations=7)
    start = torch.randn(5, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def course(by_torch):
        state, states = optimizer.init(start.clone()), []
        for number in range(40):
            loss, grad = bumps(state.x)
            if by_torch(number):
                with compiled.turned_off():
                    state = optimizer.update(state, loss, grad)
            else:
                state = optimizer.update(state, loss, grad)
            states.append({name: value.clone() for name, value in vars(state).items()})
        return states

    theirs = course(lambda _: True)
    assert len({int(taken) for taken in theirs[-1]["taken"]}) > 1
    for by_torch in (lambda _: False, lambda number: number % 3 == 0):
        for mine, other in zip(course(by_torch), theirs, strict=True):
            for name in set(mine) - {"SY", "YY"}:  # these have entries that nobody reads
                torch.testing.assert_close(mine[name], other[name], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("shared", [False, True])
def test_an_attack_alone_and_among_64_takes_the_same_course(shared):
    network = LeNet((1, 8, 8), 4)
    stream = torch.Generator().manual_seed(2)
    parameters = network.initial_parameters(1 if shared else 64, generator=stream, dtype=torch.float64)
    images = torch.rand(64, 1, 8, 8, generator=stream, dtype=torch.float64)
    target = F.one_hot(torch.arange(64) % 4, 4).double()
    whole = Start(
        Observation(network, parameters, network.gradient(parameters, images, target)),
        torch.randn(64, 1, 8, 8, generator=stream, dtype=torch.float64),
    )
    attack = replace(IDLG, optimizer=LBFGS(learning_rate=0.1), evaluations=60, stop_loss=1e-300)
    among = reconstruct(attack, *vars(whole).values(), batch_size=64)
    for number in (0, 41):
        alone = reconstruct(attack, *vars(whole.select(torch.tensor([number]))).values())
        torch.testing.assert_close(alone.images[0], among.images[number], rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(alone.loss_trace[0], among.loss_trace[number], rtol=1e-6, atol=1e-10)


def test_what_is_derived_from_weights_is_not_sent_to_other_processes():
    network = LeNet((1, 8, 8), 4)
    passes(network, attacks=2, shared=True, dtype=torch.float32)
    parameters = network.initial_parameters(generator=torch.Generator().manual_seed(0))
    network.logits(parameters, torch.zeros(1, 1, 8, 8))
    assert set(vars(parameters)) > {"tensors", "buffers"}
    back = pickle.loads(pickle.dumps(parameters))
    assert set(vars(back)) == {"tensors", "buffers"}
    assert all(map(torch.equal, back.tensors, parameters.tensors))


def test_small_products_stay_on_one_thread():
    with compiled.one_blas_thread():
        threads = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
    assert threads
    assert set(threads) == {1}


def a_process(script, *arguments, **environment):
    """What a new Python process prints."""
    done = subprocess.run(
        [sys.executable, *script, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(
    "checks", ["NUMBA_DISABLE_JIT", pytest.param("NUMBA_BOUNDSCHECK", marks=pytest.mark.launched)]
)
def test_no_loop_leaves_its_arrays_whatever_the_shapes(checks, tmp_path):
    script = Path(__file__).with_name("odd_input_for_tests.py")
    a_process([str(script)], **{checks: "1", "NUMBA_CACHE_DIR": str(tmp_path)})


STEPS = """
import hashlib, torch
from wdlg.optimizers import LBFGS
optimizer, stream = LBFGS(), torch.Generator().manual_seed(0)
state = optimizer.init(torch.randn(4, 97, generator=stream))
for _ in range(60):
    grad = 2 * state.x * torch.linspace(1, 9, 97) + 0.3 * torch.cos(3 * state.x)
    state = optimizer.update(state, (state.x * grad).sum(1), grad)
print(hashlib.sha256(state.x.numpy().tobytes()).hexdigest())
"""


def test_the_first_process_after_an_installation_computes_the_bits_of_every_later_one(tmp_path):
    first, second = (a_process(["-c", STEPS], NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2))
    assert list(tmp_path.rglob("*.nbi"))  # the second found what the first had compiled
    assert first == second


def test_what_a_loop_calls_is_always_inside_it():
    """A part that were compiled apart would be rounded differently: see compile_part."""
    engine.load_compiled()
    loops = [
        value
        for name, module in list(sys.modules.items())
        if name.startswith("wdlg.") and ".compiled_" in name
        for value in vars(module).values()
        if isinstance(value, Dispatcher)
    ]
    assert len(loops) > 15
    for loop in loops:
        for called in loop.py_func.__code__.co_names:
            part = loop.py_func.__globals__.get(called)
            if isinstance(part, Dispatcher):
                assert part.targetoptions.get("forceinline"), (loop, called)


@pytest.fixture
def no_cache_yet():
    before = numba.config.CACHE_DIR
    compiled._kept_in.cache_clear()
    yield numba.config
    numba.config.CACHE_DIR = before
    compiled._kept_in.cache_clear()


def test_where_no_folder_can_be_written_to_loops_are_compiled_without_a_cache(no_cache_yet, tmp_path):
    (tmp_path / "a file").touch()
    no_cache_yet.CACHE_DIR = str(tmp_path / "a file")
    assert compiled._kept_in() is None
    assert compiled.compile_loops(lambda x: x + 1)(2) == 3


def test_machine_code_is_kept_apart_for_each_state_of_the_sources(no_cache_yet, tmp_path, monkeypatch):
    no_cache_yet.CACHE_DIR = str(tmp_path)
    now = compiled._kept_in()
    assert now == compiled._kept_in()
    assert now.parent == tmp_path
    read = Path.read_bytes
    for changed in ("vectors.py", "convolution.py", "compiled_lbfgs.py", "compiled_convolution.py"):
        monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"#" * (path.name == changed))  # noqa: B023
        compiled._kept_in.cache_clear()
        assert compiled._kept_in() != now
    assert Path(no_cache_yet.CACHE_DIR) == tmp_path


@dataclass(frozen=True)
class CompilesFor(GradientDescent):
    """Spends a second on compiling whenever it is asked for a step."""

    def update(self, state, loss, grad):
        with event.trigger_event("numba:compile"):
            time.sleep(1)
        return super().update(state, loss, grad)


def test_the_seconds_of_an_attack_hold_no_compilation():
    network = LeNet((1, 8, 8), 4)
    parameters = network.initial_parameters(generator=torch.Generator().manual_seed(0))
    gradient = network.gradient(parameters, torch.rand(1, 1, 8, 8), torch.eye(4)[:1])
    attack = replace(IDLG, optimizer=CompilesFor(), evaluations=2)
    before = compiled.seconds_compiling()
    result = reconstruct(attack, Observation(network, parameters, gradient), torch.rand(1, 1, 8, 8))
    assert compiled.seconds_compiling() - before >= 2
    assert 0 < result.seconds.item() < 1

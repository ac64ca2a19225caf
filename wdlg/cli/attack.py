"""`wdlg attack` and `wdlg labels`: what one shared gradient, or many, give away."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wdlg.cli.options import (
    data_dir_option,
    json_option,
    json_text,
    loading,
    option,
    seed_option,
)
from wdlg.errors import InputError, require_choice, require_count, require_positive

if TYPE_CHECKING:
    from wdlg.attacks import Attack, Reconstruction
    from wdlg.study import Cases, Outcome

MOST_EVALUATIONS = 10_000_000
MOST_IMAGES = 1_000_000
"""What is asked for is held in memory, for each evaluation and for each gradient; this many take hours."""

EVALUATIONS = 2400
"""Of dlg, idlg and wdlg, unless they are told another number. Levenberg-Marquardt has its own."""

MOST_ATTEMPTS = 1000

NOT_FOR = {
    "lm": (
        ("--learning-rate", "--first-loss", "--total-variation"),
        "whose steps depend on no learning rate and no unit of the loss, and need a sum of squares",
    ),
    "exact": (
        ("--evaluations", "--learning-rate", "--first-loss", "--total-variation", "--attempts"),
        "which minimises nothing: it computes the image layer by layer",
    ),
}
"""Options that do not apply to a method, and why."""

dataset_option = option("--dataset", metavar="NAME", required=True, help="Data set; see `wdlg data list`.")
own_dataset_option = option(
    "--dataset",
    metavar="NAME|FILE.npz",
    required=True,
    help="Data set, see `wdlg data list`; or a sample file of your own.",
)
defence_option = option(
    "--defence",
    metavar="NAME,SETTING=VALUE",
    help="What is done to the gradient before it is sent: noise,level=0.01; pruning,share=0.9; "
    "rounding,format=float16; quantisation,bits=8; clipped_noise,clip=1,multiplier=0.01.",
)


@click.command()
@own_dataset_option
@option("--index", type=int, metavar="I", help="Which image of the data set, from 0.  [default: 0]")
@option(
    "--method",
    metavar="dlg|idlg|wdlg|lm|exact",
    required=True,
    help="dlg optimises image and label; idlg reads the label off the last layer's weights; wdlg off its "
    "biases, and matches gradients with a Wasserstein distance; lm minimises idlg's loss by "
    "Levenberg-Marquardt; exact computes the image layer by layer.",
)
@option("--image", metavar="FILE", help="Attack a picture of your own, of the data set's size.")
@option("--label", type=int, metavar="L", help="The class of the picture given with --image.")
@option(
    "--model",
    metavar="MODULE:FACTORY",
    help="Attack a network of your own: package.module:factory or file.py:factory, called without arguments. "
    "It must end in a linear layer with bias; `wdlg audit` takes any.  [default: the papers' LeNet]",
)
@option("--weights", metavar="FILE", help="State dict for --model (weights only: .pt, .safetensors, .npz).")
@seed_option
@option(
    "--evaluations",
    type=int,
    metavar="N",
    help="The most gradient evaluations of the attack; not for exact.  [default: 2400; lm: 200000]",
)
@option(
    "--learning-rate",
    type=float,
    metavar="R",
    help="Learning rate of L-BFGS; not for lm and exact.  [default: 1]",
)
@option(
    "--first-loss",
    type=float,
    metavar="L",
    help="The loss is told to the optimiser in a unit in which it begins at this value; not for lm and "
    "exact.  [default: its own unit]",
)
@option(
    "--total-variation",
    type=float,
    metavar="W",
    help="Weight of a prior for smooth images, in units of the loss; not for lm and exact.  [default: none]",
)
@option(
    "--attempts",
    type=int,
    metavar="N",
    help="Start anew so often, and keep the attempt of least loss; not for exact.  [default: 1]",
)
@defence_option
@option("--figure", metavar="OUT.png", help="Save a picture: original, start, recovered, loss.")
@option("--save", metavar="OUT.png", help="Save the recovered image alone, pixel for pixel.")
@option("--device", metavar="cpu|cuda", default="cpu", help="Where the attack computes.")
@data_dir_option
@json_option
def attack(
    dataset: str,
    index: int | None,
    method: str,
    image: str | None,
    label: int | None,
    model: str | None,
    weights: str | None,
    seed: int,
    evaluations: int | None,
    learning_rate: float | None,
    first_loss: float | None,
    total_variation: float | None,
    attempts: int | None,
    defence: str | None,
    figure: str | None,
    save: str | None,
    device: str,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Attack one image: share its gradient, then recover the image from it.

    Example:  wdlg attack --dataset digits --index 3 --method idlg --figure leak.png
    """
    with loading():
        from wdlg import data
        from wdlg.attacks.base import Start, Status, require_device
        from wdlg.attacks.run import reconstruct
        from wdlg.evaluation import mse, psnr, ssim
        from wdlg.sharing import defences

    against = _defence(defence)
    chosen = _method(method, evaluations, learning_rate, first_loss, total_variation, attempts, seed)
    target, alone = _targets(figure, save)
    computes_on = require_device("--device", device)
    sample, position = _private(dataset, index, image, label, data_dir)
    cases = _cases(sample, position, model, weights, seed, against)
    observation = cases.observation()
    start = Start(observation, cases.dummy_images, cases.dummy_labels).to(computes_on)
    outcome = reconstruct(
        chosen, start.observation, start.dummy_images, start.dummy_labels, progress=sys.stderr.isatty()
    ).to("cpu")
    if outcome.interrupted:
        raise KeyboardInterrupt
    result = {
        "dataset": dataset,
        "index": None if image else position,
        "method": method,
        **({} if model is None else {"model": model}),
        "label_true": cases.labels.item(),
        "label_recovered": outcome.labels.item(),
        "status": Status(int(outcome.status)).name.lower(),
        **{name: getattr(outcome, name).item() for name in ("iterations", "evaluations", "seconds", "loss")},
        **{measure.__name__: measure(outcome.images, cases.truth).item() for measure in (mse, psnr, ssim)},
    }
    if against is not None:
        exact = cases.exact().gradient
        result["relative_error"] = defences.relative_error(observation.gradient, exact).item()
        result["cosine"] = defences.cosine(observation.gradient, exact).item()
        result["defence"] = defences.title(against)
    # The figure comes last: if it cannot be written, the result is not lost.
    if as_json:
        click.echo(json_text(result))
    else:
        _tell(result, chosen.name, "your picture" if image else f"image {position}", sample.class_names)
    if alone is not None:
        data.write_image(outcome.images[0].permute(1, 2, 0).numpy(), alone)
        if not as_json:
            click.echo(f"  image      {alone}")
    if target is not None:
        from wdlg import figures

        paired = _paired(cases, chosen.name, outcome)
        begins = None if method == "exact" else cases.dummy_images.numpy()
        figures.save(figures.single_attack(paired, chosen.name, start=begins), target)
        if not as_json:
            click.echo(f"  figure     {target}")


def _method(
    name: str,
    evaluations: int | None,
    learning_rate: float | None,
    first_loss: float | None,
    total_variation: float | None,
    attempts: int | None,
    seed: int,
) -> Attack:
    """The attack that --method names, with its settings; None for those that were left out."""
    from wdlg.attacks.exact import Exact
    from wdlg.attacks.optimised import LM, METHODS, Optimised, with_settings
    from wdlg.attacks.priors import TotalVariation
    from wdlg.attacks.restarts import Restarts

    methods: dict[str, Attack] = {**METHODS, "lm": LM, "exact": Exact()}
    method = methods[require_choice("--method", name, methods)]
    given = {
        "--evaluations": evaluations,
        "--learning-rate": learning_rate,
        "--first-loss": first_loss,
        "--total-variation": total_variation,
        "--attempts": attempts,
    }
    excluded, why = NOT_FOR.get(name, ((), ""))
    for setting in excluded:
        if given[setting] is not None:
            raise InputError(
                f"{setting} is {given[setting]}, but must be left out with --method {name}, {why}."
            )
    if evaluations is not None:
        require_count("--evaluations", evaluations, below=MOST_EVALUATIONS + 1)
    if attempts is not None:
        require_count("--attempts", attempts, below=MOST_ATTEMPTS + 1)
    for setting in ("--learning-rate", "--first-loss", "--total-variation"):
        if given[setting] is not None:
            require_positive(setting, given[setting])
    if not isinstance(method, Optimised):
        return method
    if evaluations is None and name in METHODS:
        evaluations = EVALUATIONS
    settled = replace(
        with_settings(method, evaluations=evaluations, learning_rate=learning_rate), first_loss=first_loss
    )
    if total_variation is not None:
        settled = replace(settled, priors=(TotalVariation(total_variation),))
    return settled if attempts is None else Restarts(settled, attempts, seed=seed)


def _cases(
    sample: Any, position: int, model: str | None, weights: str | None, seed: int, defence: Any
) -> Cases:
    """The one case: of a LeNet that the seed draws, or of the user's network."""
    from wdlg.study.cases import Design, draw

    if model is None:
        if weights is not None:
            raise InputError(f"--weights is {weights!r}, but is allowed only together with --model.")
        return draw(sample, Design(networks=1, seed=seed, first_image=position, defence=defence))
    from wdlg.audit.models import load

    height, width, channels = sample.images.shape[1:]
    system = load(model, (channels, height, width), weights=weights, seed=seed)
    for fault, why in (
        (not system.own_output, "end in a linear layer with bias, by which attacks read the label"),
        (any(system.frozen), "train all its parameters, so that all are sent"),
    ):
        if fault:
            raise InputError(f"--model is {model!r}, but must {why}: `wdlg audit` takes any model.")
    labelled = int(sample.labels[position])
    if labelled >= system.classes:
        raise InputError(
            f"--model is {model!r} with {system.classes} classes, but the image is of class {labelled}."
        )
    design = Design(networks=1, seed=seed, classes=system.classes, first_image=position, defence=defence)
    return replace(draw(sample, design), network=system.network, parameters=system.parameters)


def _paired(cases: Cases, method: str, result: Reconstruction) -> Outcome:
    """The result as figures take it. Tables are loaded here only: without a figure, nobody waits for them."""
    import pandas as pd

    from wdlg.study.paired import Outcome
    from wdlg.study.records import log_grid

    grid = log_grid(int(result.evaluations))
    trace = {"trace_evaluation": [grid.numpy()], "trace_loss": [result.loss_trace[0, grid].numpy()]}
    return Outcome(
        records=pd.DataFrame({"method": [method], **trace}),
        images={method: result.images.numpy()},
        snapshots={},
        snapshot_iterations=(),
        truth=cases.truth.numpy(),
    )


def _tell(result: dict[str, Any], name: str, what: str, names: tuple[str, ...]) -> None:
    """Print the result of an attack."""
    from wdlg.attacks.base import Status

    meaning = Status[str(result["status"]).upper()].meaning
    click.echo(f"{name} on {result['dataset']}, {what}")
    if "defence" in result:
        click.echo(
            f"  defence    {result['defence']}: relative error {result['relative_error']:.2g}, "
            f"cosine {result['cosine']:.3f}"
        )
    click.echo(
        f"  label      {_class(result['label_true'], names)} was recovered as "
        f"{_class(result['label_recovered'], names)}"
    )
    click.echo(f"  status     {result['status']}: {meaning}")
    click.echo(
        f"  work       {result['evaluations']} gradient evaluations in {result['iterations']} "
        f"iterations, {result['seconds']:.1f} s"
    )
    click.echo(f"  loss       {result['loss']:.3g}")
    click.echo(
        f"  image      MSE {result['mse']:.3g}, PSNR {result['psnr']:.1f} dB, SSIM {result['ssim']:.3f}"
    )


@click.command()
@dataset_option
@option("--images", type=int, default=100, metavar="N", help="Gradients to read, each of a new network.")
@option("--activation", metavar="sigmoid|relu|tanh", default="sigmoid", help="Activation of the networks.")
@defence_option
@seed_option
@data_dir_option
@json_option
def labels(
    dataset: str,
    images: int,
    activation: str,
    defence: str | None,
    seed: int,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Compare the two label rules: WDLG's bias_sign and iDLG's row_sum.

    With --defence, also bias_min: the least entry of the bias's gradient, whatever the other signs.

    Example:  wdlg labels --dataset digits --images 200 --activation tanh
    """
    with loading():
        from wdlg import data
        from wdlg.attacks.labels import ANALYTIC
        from wdlg.networks.lenet import ACTIVATIONS
        from wdlg.sharing import defences
        from wdlg.study.labels import compare_rules, summarise

    require_choice("--activation", activation, ACTIVATIONS)
    require_count("--images", images, below=MOST_IMAGES + 1)
    against = _defence(defence)
    table = compare_rules(
        data.load(dataset, data_dir),
        images=images,
        activation=activation,
        seed=seed,
        rules=("bias_sign", "row_sum") if against is None else ANALYTIC,
        defence=against,
        progress=sys.stderr.isatty(),
    )
    rules = summarise(table)
    named = {} if against is None else {"defence": defences.title(against)}
    if as_json:
        click.echo(json_text({"dataset": dataset, "activation": activation, **named, "rules": rules}))
        return
    click.echo(", ".join((dataset, f"{images} gradients", f"{activation} networks", *named.values())))
    for name, rule in rules.items():
        click.echo(
            f"  {name:<10} {100 * rule['accuracy']:6.2f} % right, {rule['undecided']} undecided, "
            f"{rule['steps']:,} steps and {1e6 * rule['seconds']:,.0f} µs a gradient"
        )


def _defence(text: str | None) -> Any:
    """The defence that --defence names, or None."""
    from wdlg.sharing import defences

    try:
        return None if text is None else defences.parse(text)
    except InputError as error:
        raise InputError(f"--defence {text!r}: {error}") from None


def _private(
    dataset: str, index: int | None, image: str | None, label: int | None, data_dir: str | None
) -> tuple[Any, int]:
    """The sample that has the private image, and which of its images that is."""
    from wdlg import data

    if image is not None:
        if index is not None:
            raise InputError(f"--index is {index}, but must be left out when --image is given.")
        return _own_picture(dataset, image, label), 0
    if label is not None:
        raise InputError(f"--label is {label}, but is allowed only together with --image.")
    sample = data.read_sample(dataset) if dataset.endswith(".npz") else data.load(dataset, data_dir)
    return sample, require_count("--index", 0 if index is None else index, at_least=0, below=len(sample))


def _own_picture(dataset: str, image: str, label: int | None) -> Any:
    """A sample of the user's one picture, with the catalogue's classes of that data set."""
    import numpy as np

    from wdlg import data

    entry = data.CATALOGUE[require_choice("--dataset", dataset, data.CATALOGUE)]
    if label is None:
        raise InputError(f"--label is missing, but --image needs one, from 0 to {entry.num_classes - 1}.")
    require_count("--label", label, at_least=0, below=entry.num_classes)
    return data.Sample(
        name=dataset,
        images=data.read_image(image, entry.shape)[None],
        labels=np.array([label]),
        class_names=(),
        num_classes=entry.num_classes,
        split=np.array(["own"]),
        source=np.array([image]),
    )


def _targets(figure: str | None, save: str | None) -> tuple[Path | None, Path | None]:
    """Where the figure and the recovered image go."""
    target = None if figure is None else _writable_png("--figure", figure)
    alone = None if save is None else _writable_png("--save", save)
    if target is not None and alone is not None and target.resolve() == alone.resolve():
        raise InputError(f"--save is {save!r}, as --figure is, but must be another file.")
    return target, alone


def _writable_png(option: str, name: str) -> Path:
    """The path of a picture, checked before the work starts."""
    path = Path(name)
    if path.suffix.lower() != ".png" or path.is_dir():
        raise InputError(f"{option} is {name!r}, but must be a file that ends in .png.")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"{option} is {name!r}, but its folder must exist and be writable.")
    return path


def _class(label: int, names: tuple[str, ...]) -> str:
    if label < 0:
        return "undecided"
    return f"{label} ({names[label]})" if label < len(names) and names[label] != str(label) else str(label)

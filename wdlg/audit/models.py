"""What is audited: a torch classifier of somebody's own, loaded and brought into the form that attacks take.

Attacks and bounds are written for networks that end in a linear layer with bias. A model that does not gets
one more layer, which hands its scores on unchanged; nothing of that layer is ever sent. A model with a single
score, as for two classes, gets the score 0 of the other class beside it.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wdlg.audit.files import read_tensors
from wdlg.data.torchvision_import import torchvision_module
from wdlg.errors import InputError, require_choice, require_positive, told
from wdlg.networks import module_checks
from wdlg.networks.base import Parameters, require_image_shape
from wdlg.networks.functional import MODES
from wdlg.networks.module import ModuleNetwork
from wdlg.shapes import describe

WRAPPERS = ("state_dict", "model_state_dict")
"""Keys under which training scripts keep a state dict beside other things."""


class Classifier(nn.Module):
    """A model between what attacks need: images in [0, 1] come in, the scores of at least two classes go out.

    Args:
        model: gives scores (B, K), or (B, 1).
        mean, deviation: of each channel; images are normalised by them first.
        scores: the added output layer, or None.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, model: nn.Module, mean: Tensor, deviation: Tensor, scores: nn.Linear | None) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.model = model
        self.scores = scores

    def forward(self, images: Tensor) -> Tensor:
        """Scores (B, K) of images (B, channels, height, width)."""
        found: Tensor = self.model((images - self.mean) / self.deviation)
        return found if self.scores is None else self.scores(found)


@dataclass(frozen=True)
class System:
    """A model as it is audited.

    Attributes:
        title: where the model is from, for the report.
        model: the module itself.
        network: it, or what was put around it, as attacks take it.
        own_output: whether the model itself ends in a linear layer with bias, which label rules read.
        normalisation: (mean, standard deviation) of each channel, by which images are normalised.
        one_score: whether the model gives a single score.
    """

    title: str
    model: nn.Module
    network: ModuleNetwork
    own_output: bool
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None
    one_score: bool

    @cached_property
    def parameters(self) -> Parameters:
        """The weights, one network."""
        return self.network.parameters()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the model's own parameters, in their order; those of an added layer are not among them."""
        return tuple(name for name, _ in self.model.named_parameters())

    @property
    def added(self) -> int:
        """Tensors of an added output layer: 2, or 0."""
        return len(self.network.parameter_shapes) - len(self.names)

    @cached_property
    def frozen(self) -> tuple[bool, ...]:
        """Of each of the model's parameters, whether it is not trained (``requires_grad`` is False)."""
        return tuple(not parameter.requires_grad for parameter in self.model.parameters())

    @property
    def classes(self) -> int:
        """K, of which a model with a single score has two."""
        return self.network.classes


def load(
    source: str,
    image_shape: tuple[int, int, int],
    *,
    weights: str | Path | None = None,
    mode: str = "evaluation",
    mean: tuple[float, ...] | None = None,
    deviation: tuple[float, ...] | None = None,
    seed: int = 0,
) -> System:
    """A model from the function that makes it.

    Args:
        source: "package.module:factory", or "path/to/file.py:factory". The factory is called without
            arguments; it may also be a module itself.
        image_shape: (channels, height, width).
        weights: file of a state dict; without one the weights are those that the factory makes.
        mode: "evaluation" or "training"; see :class:`~wdlg.networks.module.ModuleNetwork`.
        mean, deviation: of each channel, by which a participant normalises images in [0, 1].
        seed: of torch's random numbers before the factory is called.

    Raises:
        InputError: the factory cannot be imported or makes no module, the weights do not fit it, or the model
            cannot be audited.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = _made(source)
    if weights is not None:
        _load_weights(made, weights)
    return system(made, image_shape, title=source, mode=mode, mean=mean, deviation=deviation)


def system(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    *,
    title: str = "",
    mode: str = "evaluation",
    mean: tuple[float, ...] | None = None,
    deviation: tuple[float, ...] | None = None,
) -> System:
    """A model at hand as it is audited; arguments and errors as of :func:`load`. Audited is a copy."""
    if not isinstance(model, nn.Module):
        raise InputError(f"model is {told(model)}, but must be a torch.nn.Module.")
    require_choice("mode", mode, MODES)
    shape = require_image_shape(image_shape)
    module_checks.require_readable_weights(model)
    try:
        model = copy.deepcopy(model)
    except Exception as error:  # whatever the module holds decides what a copy may raise
        raise InputError(
            f"model cannot be copied ({module_checks.first_line(error)}), but must be."
        ) from None
    for name, tensor in model.named_parameters():
        if not torch.isfinite(tensor).all():
            raise InputError(f"model has a weight {name} that is NaN or infinite, but all must be finite.")
    normalisation = _normalisation(mean, deviation, shape[0])
    like = next(model.parameters(), None)
    if like is None:
        raise InputError("model has no parameters, so that no gradient is sent.")
    width, own = _scores(model.train(mode == "training"), shape, normalisation, like)
    scores = None if own else _added_layer(width, like)
    plain = own and normalisation is None
    network = ModuleNetwork(
        model if plain else Classifier(model, *_as_buffers(normalisation, shape[0], like), scores),
        shape,
        mode,
    )
    return System(
        title=title or type(model).__name__,
        model=model,
        network=network,
        own_output=own,
        normalisation=normalisation,
        one_score=width == 1,
    )


def _made(source: str) -> nn.Module:
    """What the factory makes."""
    where, colon, name = source.rpartition(":")
    if not colon or not where or not name.isidentifier():
        raise InputError(
            f"--model is {source!r}, but must be package.module:factory or file.py:factory, such as "
            "torchvision.models:resnet18."
        )
    try:
        home = _from_file(Path(where)) if where.endswith(".py") else _by_name(where)
        factory = getattr(home, name)
    except InputError:
        raise
    except AttributeError:
        raise InputError(f"--model is {source!r}, but {where} has no {name}.") from None
    except Exception as error:  # whatever the module does when it is imported
        raise _cannot(source, "be imported", error) from None
    if isinstance(factory, nn.Module):
        return factory
    if not callable(factory):
        raise InputError(f"--model is {source!r}, which is {told(factory)}, but must be a function.")
    try:
        model = factory()
    except Exception as error:  # whatever the factory does
        raise _cannot(source, "be called without arguments", error) from None
    if not isinstance(model, nn.Module):
        raise InputError(f"--model {source} gives a {type(model).__name__}, but must give a torch.nn.Module.")
    return model


def _cannot(source: str, what: str, error: Exception) -> InputError:
    return InputError(
        f"--model is {source!r}, but cannot {what} ({type(error).__name__}: "
        f"{module_checks.first_line(error)})."
    )


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"--model names the file {str(path)!r}, but there is none.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def _by_name(name: str) -> Any:
    """A module by its name, also one of the working folder, as ``python -m`` finds it."""
    if name.split(".", maxsplit=1)[0] == "torchvision":
        return torchvision_module(name)
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    finally:
        if added:
            sys.path.remove(here)


def _load_weights(model: nn.Module, file: str | Path) -> None:
    state: Any = read_tensors(file, "weights", nested=WRAPPERS)
    if not isinstance(state, Mapping):
        raise InputError(f"weights {file} holds a list, but must hold a state dict: tensors by name.")
    wanted = model.state_dict()
    missing, extra = [key for key in wanted if key not in state], [key for key in state if key not in wanted]
    if missing or extra:
        parts = [f"has no {name}" for name in missing[:1]]
        parts += [f"has {name}, which it does not know" for name in extra[:1]]
        raise InputError(
            f"weights {file} {' and '.join(parts)}, but must hold just what the model does "
            f"({len(missing)} missing, {len(extra)} unknown)."
        )
    for key, tensor in state.items():
        if tensor.shape != wanted[key].shape:
            raise InputError(
                f"weights {file} has {key} of shape {tuple(tensor.shape)}, but the model's is of shape "
                f"{tuple(wanted[key].shape)}."
            )
    model.load_state_dict(dict(state))


def _normalisation(
    mean: tuple[float, ...] | None, deviation: tuple[float, ...] | None, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    if mean is None and deviation is None:
        return None
    if mean is None or deviation is None:
        raise InputError("--mean and --std belong together, but only one of them is given.")
    for name, values in (("--mean", mean), ("--std", deviation)):
        if len(values) != channels:
            raise InputError(
                f"{name} has {len(values)} numbers, but must have one for each of {channels} channels."
            )
    for value in deviation:
        require_positive("--std", value)
    return tuple(mean), tuple(deviation)


def _as_buffers(
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None, channels: int, like: Tensor
) -> tuple[Tensor, Tensor]:
    mean, deviation = normalisation or ((0.0,) * channels, (1.0,) * channels)
    first, second = (like.new_tensor(values)[:, None, None] for values in (mean, deviation))
    return first, second


def _scores(
    model: nn.Module,
    shape: tuple[int, int, int],
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None,
    like: Tensor,
) -> tuple[int, bool]:
    """How many scores the model gives for each image, and whether its last linear layer's are just these."""
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)).to(like)
    buffers = [buffer.clone() for buffer in model.buffers()]
    probe = Classifier(model, *_as_buffers(normalisation, shape[0], like), None)
    last = _last_linear(model)
    seen: list[tuple[Tensor, int]] = []
    if last is not None:
        hook = last.register_forward_hook(lambda _, __, out: seen.append((out.clone(), out.data_ptr())))
    try:
        with torch.no_grad():
            found = probe(images)
    except Exception as error:  # whatever the model does
        raise InputError(
            f"model does not take images of shape {(2, *shape)}, but must "
            f"({module_checks.first_line(error)})."
        ) from None
    finally:
        if last is not None:
            hook.remove()
        with torch.no_grad():  # running statistics of a first call are none of the model's
            for buffer, before in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(before)
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != 2 or not found.shape[1]:
        raise InputError(f"model gives {describe(found)} for 2 images, but must give class scores (2, K).")
    # The very numbers, in the very place: an activation leaves scores equal that happen to be in its range.
    own = len(seen) == 1 and seen[0][1] == found.data_ptr() and torch.equal(seen[0][0], found)
    return found.shape[1], own and found.shape[1] > 1


def _last_linear(model: nn.Module) -> nn.Linear | None:
    """The linear layer with bias whose parameters are the model's last, if there is one."""
    try:
        module_checks.require_linear_output(model)
    except InputError:
        return None
    return [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]


def _added_layer(width: int, like: Tensor) -> nn.Linear:
    """One that hands ``width`` scores on as they are, or makes (0, s) of a single score s."""
    layer = nn.Linear(width, max(width, 2)).to(like)
    with torch.no_grad():
        layer.bias.zero_()
        layer.weight.copy_(like.new_tensor([[0.0], [1.0]]) if width == 1 else torch.eye(width).to(like))
    return layer

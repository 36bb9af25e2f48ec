"""The steps of training as one table: what each needs and leaves, what it trains, and what it measures at its end."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from ss4d.stages.data.clip import TrainingClip
from ss4d.stages.errors import InputError
from ss4d.stages.nn.column_encoder import ColumnEncoder
from ss4d.stages.nn.occupancy import SparseStructureDecoder, SparseStructureEncoder
from ss4d.stages.roles import (
    GAUSSIAN_DECODER,
    IMAGE_ENCODER,
    LATENT_ENCODER,
    LATENT_FLOW,
    STRUCTURE_DECODER,
    STRUCTURE_ENCODER,
    STRUCTURE_FLOW,
)
from ss4d.stages.training.appearance import AppearanceAutoencoder, AppearanceSettings, start_decoder, start_encoder
from ss4d.stages.training.columns import ImageColumns
from ss4d.stages.training.end_to_end import (
    LEARNED_STEPS,
    ObjectSamples,
    SampledGaussians,
    SampledVoxels,
    StructureSamples,
)
from ss4d.stages.training.flows import LatentsFlow, StructureFlow
from ss4d.stages.training.fresh import deeper
from ss4d.stages.training.objective import Objective
from ss4d.stages.training.occupancy import OccupancyAutoencoder
from ss4d.stages.training.results import Results
from ss4d.stages.training.statistics import fold_scale, occupancy_scale, slat_normalization
from ss4d.stages.training.training import Training

Batches = Iterable[Sequence[TrainingClip]]
Measure = Callable[[Results, Mapping[str, nn.Module], Batches], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of training.

    Attributes:
        name: in folders, logs and recipes.
        needs: steps whose results it goes on from.
        leaves: roles of the networks that it trains.
        objective: builds what it trains from the results of the steps before; None where it only measures.
        measure: numbers to keep, of the networks it trained by role and of batches of clips; None for none.
        measured_on: step whose clips are measured; its plan is that of a step that only measures, too.
        encoder: role of the encoder that it trains beside a decoder. Where a model to start from comes without that,
            the encoder alone is trained, for the decoder as it is.
        on_request: whether it is left out where there is a model to start from, unless it is asked for alone.
        sets_codes: whether it decides what latents mean, which flows then rely on.
        adapts: whether low-rank adapters can learn in its networks.
    """

    name: str
    needs: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()
    objective: Callable[[Results], Objective] | None = None
    measure: Measure | None = None
    measured_on: str = ""
    encoder: str | None = None
    on_request: bool = False
    sets_codes: bool = False
    adapts: bool = False

    @property
    def plan(self) -> str:
        """Which of a recipe's plans it follows."""
        return self.measured_on if self.objective is None else self.name


def possible_steps(training: Training) -> Sequence[Step]:
    """The steps of a training, in their order.

    A model to start from that comes without an encoder keeps its codes, and with adapters nothing but flows learns.

    Raises:
        InputError: if `only` is none of them.
    """
    start, steps = training.start, tuple(STEPS.values())
    if start is not None:
        steps = tuple(step for step in steps if not step.on_request or step.name == training.only)
        lacking = [step for step in steps if step.encoder is not None and step.encoder not in start.networks]
        if training.lora is not None:
            steps = tuple(step for step in steps if step in lacking or step.adapts)
        elif lacking:
            steps = tuple(step for step in steps if step in lacking or not step.sets_codes)
    if training.only is None:
        return steps
    chosen = [step for step in steps if step.name == training.only]
    if not chosen:
        raise InputError(f"--only {training.only} is none of the steps {', '.join(step.name for step in steps)}")
    return chosen


def _images(results: Results) -> Objective:
    encoder = results.network(IMAGE_ENCODER, "images")
    if not isinstance(encoder, ColumnEncoder):
        raise InputError(
            f"--only images trains column encoders, and the model to start from has a {type(encoder).__name__}"
        )
    if results.training.deepen:
        encoder = deeper(encoder, results.training.seed)
    return ImageColumns(encoder)


def _occupancy(results: Results) -> Objective:
    return _occupancy_autoencoder("occupancy", results, learn_decoder=not _keeps_decoder(STRUCTURE_ENCODER, results))


def _appearance(results: Results) -> Objective:
    keeps_decoder = _keeps_decoder(LATENT_ENCODER, results)
    autoencoder = _appearance_autoencoder("appearance", results, AppearanceSettings(), learn_decoder=not keeps_decoder)
    if results.training.start is None:
        start_decoder(autoencoder.decoder)
    if results.training.start is None or keeps_decoder:
        start_encoder(autoencoder.encoder)
    return autoencoder


def _keeps_decoder(encoder: str, results: Results) -> bool:
    """Whether the model to start from has a decoder without its encoder: the decoder stays as it is then."""
    start = results.training.start
    return start is not None and encoder not in start.networks


def _structure(results: Results) -> Objective:
    return StructureFlow(
        results.network(STRUCTURE_FLOW, "structure"),
        results.network(IMAGE_ENCODER, "structure"),
        results.network(STRUCTURE_ENCODER, "structure"),
        results.network(STRUCTURE_DECODER, "structure"),
        results.samplers()[0],
    )


def _latents(results: Results) -> Objective:
    return LatentsFlow(
        results.network(LATENT_FLOW, "latents"),
        results.network(IMAGE_ENCODER, "latents"),
        results.network(LATENT_ENCODER, "latents"),
        results.normalization(),
        results.network(GAUSSIAN_DECODER, "latents"),
    )


def _voxels(results: Results) -> Objective:
    samples = _structure_samples("voxels", results, learned_steps=LEARNED_STEPS)
    return SampledVoxels(_occupancy_autoencoder("voxels", results, learn_decoder=True), samples)


def _gaussians(results: Results) -> Objective:
    objects = ObjectSamples(
        _structure_samples("gaussians", results, learned_steps=0),
        results.network(STRUCTURE_DECODER, "gaussians"),
        results.network(LATENT_FLOW, "gaussians"),
        results.normalization(),
        results.samplers()[1],
        learned_steps=LEARNED_STEPS,
    )
    settings = AppearanceSettings(motion=1.0)
    return SampledGaussians(_appearance_autoencoder("gaussians", results, settings, learn_decoder=True), objects)


def _structure_samples(step: str, results: Results, *, learned_steps: int) -> StructureSamples:
    return StructureSamples(
        results.network(IMAGE_ENCODER, step),
        results.network(STRUCTURE_FLOW, step),
        results.samplers()[0],
        learned_steps=learned_steps,
    )


def _occupancy_autoencoder(step: str, results: Results, *, learn_decoder: bool) -> OccupancyAutoencoder:
    encoder, decoder = results.network(STRUCTURE_ENCODER, step), results.network(STRUCTURE_DECODER, step)
    return OccupancyAutoencoder(encoder, decoder, learn_decoder=learn_decoder)


def _appearance_autoencoder(
    step: str, results: Results, settings: AppearanceSettings, *, learn_decoder: bool
) -> AppearanceAutoencoder:
    encoder, decoder = results.network(LATENT_ENCODER, step), results.network(GAUSSIAN_DECODER, step)
    return AppearanceAutoencoder(encoder, decoder, settings, learn_decoder=learn_decoder)


def _scale_occupancy(_: Results, trained: Mapping[str, nn.Module], batches: Batches) -> dict[str, Any]:
    """Brings the occupancy latent to unit size, in the weights of encoder and decoder."""
    if STRUCTURE_DECODER not in trained:  # it was there before, and wants latents as they are
        return {}
    encoder, decoder = trained[STRUCTURE_ENCODER], trained[STRUCTURE_DECODER]
    assert isinstance(encoder, SparseStructureEncoder), "that is its role"
    assert isinstance(decoder, SparseStructureDecoder), "that is its role"
    scale = occupancy_scale(encoder, batches)
    fold_scale(encoder, decoder, scale)
    return {"occupancy_scale": scale.tolist()}


def _normalize_latents(results: Results, _: Mapping[str, nn.Module], batches: Batches) -> dict[str, Any]:
    """Measures the structured latents."""
    normalization = slat_normalization(results.network(LATENT_ENCODER, "statistics"), batches)
    return {"slat_normalization": asdict(normalization)}


# In their order.
_TABLE = (
    Step(name="images", leaves=(IMAGE_ENCODER,), objective=_images, on_request=True),
    Step(
        name="occupancy",
        leaves=(STRUCTURE_ENCODER, STRUCTURE_DECODER),
        objective=_occupancy,
        measure=_scale_occupancy,
        measured_on="structure",
        encoder=STRUCTURE_ENCODER,
        sets_codes=True,
    ),
    Step(
        name="appearance",
        leaves=(LATENT_ENCODER, GAUSSIAN_DECODER),
        objective=_appearance,
        encoder=LATENT_ENCODER,
        sets_codes=True,
    ),
    Step(
        name="statistics",
        needs=("appearance",),
        measure=_normalize_latents,
        measured_on="structure",
        sets_codes=True,
    ),
    Step(
        name="structure",
        needs=("images", "occupancy"),
        leaves=(STRUCTURE_FLOW,),
        objective=_structure,
        adapts=True,
    ),
    Step(
        name="latents",
        needs=("appearance", "statistics", "structure"),
        leaves=(LATENT_FLOW,),
        objective=_latents,
        adapts=True,
    ),
    Step(
        name="voxels",
        needs=("occupancy", "structure"),
        leaves=(STRUCTURE_DECODER, STRUCTURE_FLOW),
        objective=_voxels,
    ),
    Step(
        name="gaussians",
        needs=("appearance", "statistics", "latents", "voxels"),
        leaves=(GAUSSIAN_DECODER, LATENT_FLOW),
        objective=_gaussians,
    ),
)
STEPS: Mapping[str, Step] = {step.name: step for step in _TABLE}
LEAVES: Mapping[str, tuple[str, ...]] = {step.name: step.leaves for step in _TABLE}

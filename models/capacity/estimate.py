"""Estimate the steps, the memory and the disk that a job will take; free of torch.

Weights and the values that layers keep for the gradient are counted (``footprint.py``); the other
numbers were measured. On a CPU the sum lies between 10 % below and 40 % above the peak of a real
training process. On a GPU the sums are the same, but numbers marked "not measured" are guesses.

Legend: H height, W width, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

from models.capacity import choosing, footprint
from models.capacity.images import FLOAT_BYTES, applied, cached, pixels
from models.config.stages import AdaptationConfig, SegmenterTrainingConfig
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import Domain, working_shape
from models.data.sections import Section
from models.training.lengths import Lengths, Schedule, sections_per_epoch
from models.training.progress import Stage

PROCESS_BYTES = 430 * 10**6
"""The memory of a trainer on a CPU that trains next to nothing; 30 MB are the service's modules."""

GPU_PROCESS_BYTES = 600 * 10**6
"""The GPU memory that CUDA itself takes; not measured."""

CUDA_PROCESS_BYTES = 3 * 10**9
"""The main memory of a trainer that uses a GPU; not measured."""

HEAP_BYTES = 200 * 10**6
"""The most memory that tensors of a few megabytes leave on the heap when they are freed. It adds to
the peak of training, and is still held when images are segmented."""

BF16_SHARES = {"style": 0.8, "segmenter": 0.6}
"""The share of float32's kept values that bfloat16 keeps, by network."""

_LOG_BYTES = 1 << 20

Cause = Literal["training", "images"]


@dataclass(frozen=True)
class Extent:
    """A dataset's sections, and the pixel sizes at which they are stored and worked on."""

    num_classes: int
    pixel_size_nm: float
    working_nm: float
    sections: Sequence[Section]

    @classmethod
    def of(cls, domain: Domain) -> Self:
        """Return the extent of a domain."""
        info = domain.info
        return cls(domain.num_classes, info.pixel_size_nm, domain.working_nm, domain.sections)

    def count(self, *splits: str, masked: bool = False) -> int:
        """Count the sections of some splits; only those with a mask if ``masked``."""
        return len(self._of(splits, masked))

    def shapes(self, *splits: str, masked: bool = False) -> list[tuple[int, int]]:
        """Return the shapes (H, W), at the working pixel size, of the sections of some splits."""
        nm = self.pixel_size_nm
        return [
            working_shape((s.height, s.width), s.pixel_size_nm or nm, self.working_nm)
            for s in self._of(splits, masked)
        ]

    @property
    def largest_stored(self) -> int:
        """The number of pixels of the largest section, as it is stored."""
        return max((s.height * s.width for s in self.sections), default=0)

    def _of(self, splits: Sequence[str], masked: bool) -> list[Section]:
        return [s for s in self.sections if s.split in splits and (s.has_mask or not masked)]


@dataclass(frozen=True)
class StageEstimate:
    """The steps and the peak memory of a stage; ``cause`` names what takes most of the memory.

    ``memory_bytes`` is the main memory of all processes, ``gpu_memory_bytes`` the memory of each
    GPU, 0 on a CPU.
    """

    stage: Stage
    steps: int
    memory_bytes: int
    gpu_memory_bytes: int
    cause: Cause


@dataclass(frozen=True)
class Estimate:
    """The needs of a job: of each stage, and the most that lies on the disk at a time."""

    stages: tuple[StageEstimate, ...]
    disk_bytes: int

    @property
    def memory_bytes(self) -> int:
        return max(stage.memory_bytes for stage in self.stages)

    @property
    def gpu_memory_bytes(self) -> int:
        return max(stage.gpu_memory_bytes for stage in self.stages)


def estimate(
    config: StyleFilterConfig,
    stages: Sequence[Stage],
    source: Extent,
    target: Extent | None = None,
    *,
    num_processes: int = 1,
) -> Estimate:
    """Estimate a job that runs ``stages`` one after the other; pre-training has no ``target``."""
    job = _Job(config, stages, source, target or replace(source, sections=()), num_processes)
    return Estimate(tuple(job.stage(stage) for stage in stages), job.disk_bytes())


@dataclass(frozen=True)
class _Job:
    config: StyleFilterConfig
    stages: Sequence[Stage]
    source: Extent
    target: Extent
    num_processes: int

    def stage(self, stage: Stage) -> StageEstimate:
        training, images = self._training_bytes(stage), self._images_bytes(stage)
        earlier = self.stages[: self.stages.index(stage) + 1]
        left = min(HEAP_BYTES, max(self._training_bytes(name) for name in earlier))
        # A state is put together in memory before it is written.
        beside = max(training, left + max(images, self._state_bytes(stage)))
        working = self._weights_bytes(stage) + beside
        on_gpu = self.config.device == "cuda"
        process = CUDA_PROCESS_BYTES if on_gpu else PROCESS_BYTES + working
        return StageEstimate(
            stage=stage,
            steps=self._steps(stage),
            memory_bytes=self.num_processes * (process + self._data_bytes(stage)),
            gpu_memory_bytes=GPU_PROCESS_BYTES + working if on_gpu else 0,
            cause="training" if training and training >= images else "images",
        )

    def disk_bytes(self) -> int:
        """Return the most bytes that lie on the disk at a time."""
        # States stay until the job ends, and the largest is written anew before the old one goes.
        states = [self._state_bytes(stage) for stage in self.stages]
        others = (self._trained - 1) * self._state_bytes("adapt") if "adapt" in self.stages else 0
        networks = {"style": self._generator, "pretrain": self._unet, "adapt": self._unet}
        if "adapt" not in self.stages:
            networks["verdict"] = self._unet  # what is chosen without training
        results = sum(networks.get(stage, 0) for stage in self.stages)
        stylised = pixels(self._stylised_shapes()) if "stylise" in self.stages else 0
        if self._chooses:
            stylised = round(choosing.num_copies(self.config, self.source.num_classes) * stylised)
        return sum(states) + others + max(states) + FLOAT_BYTES * (results + stylised) + _LOG_BYTES

    @property
    def _chooses(self) -> bool:
        return self.config.method == "chosen"

    @property
    def _trained(self) -> int:
        """The number of networks that the stage ``adapt`` trains one after the other."""
        return choosing.num_trained(self.config) if self._chooses else 1

    @property
    def _generator(self) -> int:
        return footprint.generator_parameters(self.config.style)

    @property
    def _unet(self) -> int:
        return footprint.segmenter_parameters(self.config.segmenter, self.source.num_classes)

    @property
    def _cut(self) -> int:
        style = self.config.style
        others = footprint.projector_parameters(style) + footprint.discriminator_parameters(style)
        return self._generator + others

    def _steps(self, stage: Stage) -> int:
        config, source, target = self.config, self.source, self.target
        num_source, num_target = source.count("train", masked=True), target.count("train")
        if stage == "style":
            num_sections = max(source.count("train"), num_target)
            return Schedule.of(config.style, num_sections, num_processes=self.num_processes).steps
        if stage == "pretrain":
            return self._lengths(config.pretrain, num_source)
        if stage == "adapt":
            per_epoch = sections_per_epoch(config.adaptation, num_source, num_target)
            return self._trained * self._lengths(config.adaptation, per_epoch)
        if stage == "stylise":
            return len(self._stylised_shapes())
        if stage == "verdict":  # if all sections have labels
            if self._chooses:
                return choosing.num_passes(config) * num_target
            return 3 * max(num_target, target.count("val"))
        return (3 if self._chooses else 4) * target.count("test", masked=True)  # scored methods

    def _lengths(self, config: SegmenterTrainingConfig, num_sections: int) -> int:
        return Lengths.of(config, num_sections, num_processes=self.num_processes).steps

    def _weights_bytes(self, stage: Stage) -> int:
        """Return the bytes of the networks in memory, with what training keeps beside them."""
        # Training keeps gradients, both of Adam's moments, and the best weights.
        beside = int(self.config.adaptation.pseudo_labeler != "current")
        earlier = self._generator if len(self.stages) > 1 else 0
        if self._chooses:
            earlier = 0
            # Candidates that were trained stay until the last comparison.
            beside = choosing.ROUNDS_NETWORKS + self._trained
        values = {
            "style": 4 * self._cut,
            "pretrain": 5 * self._unet + earlier,
            "stylise": earlier + self._unet,
            "adapt": (6 + beside) * self._unet + earlier,
            "evaluate": earlier + 2 * self._unet,
            "verdict": earlier + (2 + self._trained) * self._unet,
        }[stage]
        return FLOAT_BYTES * values

    def _state_bytes(self, stage: Stage) -> int:
        """Return the bytes of a saved state: weights, both moments, and the best weights."""
        beside = int(self.config.adaptation.pseudo_labeler == "ema")
        if self._chooses:
            beside = choosing.ROUNDS_NETWORKS
        values = {
            "style": 3 * self._cut,
            "pretrain": 4 * self._unet,
            "adapt": (4 + beside) * self._unet,
        }
        return FLOAT_BYTES * values.get(stage, 0)

    def _training_bytes(self, stage: Stage) -> int:
        """Return the most bytes that a step takes beside the weights."""
        if stage == "style":
            network, precision = "style", self.config.style.precision
            kept, weights = self._style_values(), self._cut
        elif stage in ("pretrain", "adapt"):
            config = self._segmenting(stage)
            network, precision = "segmenter", config.precision
            kept, weights = self._segmenter_values(config), self._unet
        else:
            return 0
        if precision == "bf16":  # the weights are copied in it
            kept = round(kept * BF16_SHARES[network]) + weights // 2
        num_bytes = FLOAT_BYTES * kept
        # Gradients on their way back are two or three of the 20 or so largest tensors.
        return num_bytes + num_bytes // 8 + min(num_bytes, HEAP_BYTES)

    def _segmenting(self, stage: Stage) -> SegmenterTrainingConfig:
        return self.config.pretrain if stage == "pretrain" else self.config.adaptation

    def _style_values(self) -> int:
        style, device = self.config.style, self.config.device
        part, domains = style.batch_size // style.accumulate, 2 if style.nce_identity else 1
        images = part * domains
        translation = images * footprint.generator_values(style, device)
        discriminated = footprint.discriminator_values(style, device)
        encoded = footprint.encoder_values(style, footprint.TAPPED_BLOCKS, device)
        compared = images * (encoded + footprint.projection_values(style))
        # D is updated, part by part, while the last part's translation waits.
        step = max(2 * part * discriminated, part * discriminated + compared)
        keys = images * style.flip_equivariance
        return translation + step + keys * footprint.tap_values(style)

    def _segmenter_values(self, config: SegmenterTrainingConfig) -> int:
        views = 2 if isinstance(config, AdaptationConfig) and config.student_view == "both" else 1
        values = footprint.segmenter_values(
            self.config.segmenter, self.source.num_classes, config.crop_px
        )
        return views * (config.batch_size // config.accumulate) * values

    def _images_bytes(self, stage: Stage) -> int:
        """Return the most bytes that the networks take for whole images."""
        validated = self.source.shapes("val", masked=True)
        tested = self.target.shapes("test", masked=True)
        if stage == "pretrain":
            return self._segment_bytes(validated)
        if stage == "adapt":
            shapes = validated + self.target.shapes("val", masked=True)
            return self._segment_bytes(shapes + (self._labelled_shapes() if self._chooses else []))
        if stage == "stylise":
            return self._stylise_bytes(self._stylised_shapes())
        if stage == "evaluate":
            native = 2 * FLOAT_BYTES * self.source.num_classes * self.target.largest_stored
            return max(self._segment_bytes(tested), self._stylise_bytes(tested), native)
        if stage == "verdict":
            shapes = self._labelled_shapes()
            return max(self._segment_bytes(shapes), self._stylise_bytes(shapes))
        return 0

    def _labelled_shapes(self) -> list[tuple[int, int]]:
        """Return the shapes in which sections are segmented that may have labels."""
        if not self._chooses:
            return self.target.shapes("train", "val")
        finest = min((1.0, *self.config.choice.pixel_factors))
        return [(round(h / finest), round(w / finest)) for h, w in self.target.shapes("train")]

    def _stylised_shapes(self) -> list[tuple[int, int]]:
        return self.target.shapes("train") + self.target.shapes("val", masked=True)

    def _segment_bytes(self, shapes: Sequence[tuple[int, int]]) -> int:
        classes = self.source.num_classes
        # 8.5 to 10.5 maps as wide as the first stage were measured.
        per_pixel = 12 * self.config.segmenter.base_filters + 3 * classes
        return applied(shapes, per_pixel, classes)

    def _stylise_bytes(self, shapes: Sequence[tuple[int, int]]) -> int:
        if self._chooses:  # a view makes a few images of one
            return applied(shapes, 4, 1)
        # Twice the 7 x 7 windows of a convolution of one channel, and the widest maps.
        windows = 100 if self.config.device == "cpu" else 4
        return applied(shapes, windows + 4 * self.config.style.base_filters, 1)

    def _data_bytes(self, stage: Stage) -> int:
        """Return the bytes of the domains' caches, and of one section while it is resampled."""
        source = cached(self.source.shapes("train", "val"))
        target = cached(self.target.shapes("train", "val"))
        stylised = cached(self._stylised_shapes())
        later = stylised if stage in ("adapt", "evaluate", "verdict") else 0
        if self._chooses:
            later = round(choosing.num_copies(self.config, self.source.num_classes) * later)
            if stage == "adapt":
                shapes = self._labelled_shapes()
                later += choosing.label_cache_bytes(shapes, self.source.num_classes)
        return (
            source
            + target
            + later
            + 12 * max(self.source.largest_stored, self.target.largest_stored)
        )

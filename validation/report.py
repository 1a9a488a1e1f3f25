"""Report: the verdict on one bundle with everything that led to it. A report without findings fails."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from latentc.runtime.manifest import Json
from latentc.validation.finding import Finding


@dataclass(frozen=True)
class Execution:
    """What was really executed to get the figures.

    Args:
        executes: what the target's hardware runs, as 'weights × activations'.
        simulated: what the bundle only simulates, in words.
        stand_in: what ran here in the target's place, in words; empty when it was the target's own runtime.
    """

    executes: tuple[str, ...]
    simulated: tuple[str, ...] = ()
    stand_in: str = ""


@dataclass(frozen=True)
class PictureRow:
    """One prompt's pair of pictures.

    Args:
        index: of the prompt, from 0.
        prompt: the text.
        original: PNG of the reference, relative to the report.
        result: PNG of the bundle, relative to the report.
        psnr_db: of the pair.
        ssim: of the pair; None for pictures below 11 pixels.
        feature_distance: 1 - cosine of CLIP's features; None without a CLIP model.
        clip_score: of the result; None without a CLIP model.
        original_wrong: what of the prompt the original does not show, such as ``colour``; empty when all
            is right, None when nobody can tell.
        result_wrong: the same for the result.
    """

    index: int
    prompt: str
    original: str
    result: str
    psnr_db: float
    ssim: float | None
    feature_distance: float | None
    clip_score: float | None
    original_wrong: tuple[str, ...] | None
    result_wrong: tuple[str, ...] | None


@dataclass(frozen=True)
class StepRow:
    """The trajectories after one step.

    Args:
        step: 1…steps.
        relative_error: mean over the prompts.
        worst_relative_error: the largest of any prompt.
        cosine: mean over the prompts.
    """

    step: int
    relative_error: float
    worst_relative_error: float
    cosine: float


@dataclass(frozen=True)
class LayerRow:
    """What a lossy pass cost in one layer.

    Args:
        component: folder name.
        layer: name of the weight.
        pass_name: which pass.
        relative_error: ‖rewritten - original‖ / ‖original‖.
    """

    component: str
    layer: str
    pass_name: str
    relative_error: float


@dataclass(frozen=True)
class TrialRow:
    """One way to rewrite a layer that a pass tried, and what it gave on inputs that it was not fitted to.

    Args:
        component: folder name.
        layer: name of the weight.
        pass_name: which pass.
        way: what was tried, in the pass's word.
        relative_error: ‖rewritten - original‖ / ‖original‖ of the layer's output.
        taken: whether the layer was rewritten so.
    """

    component: str
    layer: str
    pass_name: str
    way: str
    relative_error: float
    taken: bool


@dataclass(frozen=True)
class FrontRow:
    """One way to spend a budget on a component that a pass could have taken, the best for it as foretold.

    Args:
        component: folder name.
        ratio: bytes of the linears over what they take in fp16; with ``device`` their modelled time there,
            over that of floats.
        relative_error: foretold ‖latents - original's‖ / ‖original's‖ at the end of the trajectory.
        int4_layers: how many linears get INT4.
        int8_layers: how many get INT8.
        float_layers: how many stay as they are.
        taken: whether the component was built so.
        device: the target whose time ``ratio`` is of; empty for bytes.
    """

    component: str
    ratio: float
    relative_error: float
    int4_layers: int
    int8_layers: int
    float_layers: int
    taken: bool
    device: str = ""

    @property
    def sqnr_db(self) -> float | None:
        """Foretold signal to noise of the final latents; None without an error or without a finite one."""
        if not math.isfinite(self.relative_error) or self.relative_error <= 0:
            return None
        return -20 * math.log10(self.relative_error)


@dataclass(frozen=True)
class AllotmentRow:
    """What one linear got of the budget.

    Args:
        component: folder name.
        layer: name of the weight.
        allotment: ``float``, ``int8``, ``int4`` or ``int4+RANK`` with a branch of that rank.
    """

    component: str
    layer: str
    allotment: str


@dataclass(frozen=True)
class RefusalRow:
    """A candidate that a pass left alone."""

    component: str
    pass_name: str
    where: str
    why: str


@dataclass(frozen=True)
class SizeRow:
    """A component's weights in bytes; the quantized ones with their low-rank branches and scales."""

    component: str
    fp16_bytes: int
    bundle_bytes: int
    quantized_fp16_bytes: int
    quantized_bytes: int


@dataclass(frozen=True)
class Timing:
    """How long a piece of work took here.

    Args:
        name: what was done.
        seconds: each time, median.
        times: how often it was done.
    """

    name: str
    seconds: float
    times: int


@dataclass(frozen=True)
class BuildFacts:
    """What the compiler knows about how the bundle was made; empty when only the bundle is at hand."""

    layers: tuple[LayerRow, ...] = ()
    refusals: tuple[RefusalRow, ...] = ()
    timings: tuple[Timing, ...] = ()
    trials: tuple[TrialRow, ...] = ()
    front: tuple[FrontRow, ...] = ()
    allotments: tuple[AllotmentRow, ...] = ()


@dataclass(frozen=True)
class Report:
    """The verdict on one bundle.

    Args:
        recipe: name of the recipe.
        target: name of the target.
        family: name of the family.
        execution: what really ran.
        findings: every metric against its limit.
        pictures: a row a prompt.
        steps: the trajectories, step by step.
        sizes: a row a component.
        bundle_bytes: of all files of the bundle.
        build: what the compiler knows.
        timings: of this validation.
        notes: what was not measured and why, and what else to know; whole sentences.
        sampling: steps, guidance, height and width of the comparison.
        scheduler: name.
        environment: machine and versions that validated.
        provenance: where the bundle comes from: digests, toolchain.
        resolved_recipe: the recipe that made the bundle.
    """

    recipe: str
    target: str
    family: str
    execution: Execution
    findings: tuple[Finding, ...]
    pictures: tuple[PictureRow, ...] = ()
    steps: tuple[StepRow, ...] = ()
    sizes: tuple[SizeRow, ...] = ()
    bundle_bytes: int = 0
    build: BuildFacts = BuildFacts()
    timings: tuple[Timing, ...] = ()
    notes: tuple[str, ...] = ()
    sampling: dict[str, float] = field(default_factory=dict)
    scheduler: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    provenance: dict[str, str] = field(default_factory=dict)
    resolved_recipe: dict[str, Json] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every finding passed and at least one of them was held to a limit."""
        held = any(finding.limit is not None for finding in self.findings)
        return held and all(finding.passed for finding in self.findings)

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that did not pass."""
        return tuple(finding for finding in self.findings if not finding.passed)

    def verdict(self) -> str:
        """One sentence: passed or failed, and what counted."""
        held = sum(finding.limit is not None for finding in self.findings)
        broken = sum(finding.limit is not None for finding in self.failures)
        if not self.findings:
            return "failed: nothing was measured"
        if not held:
            return "failed: nothing was held to a limit"
        if self.passed:
            return f"passed: {held} of {held} limits kept"
        strange = len(self.failures) - broken
        numbers = "1 other value is no number" if strange == 1 else f"{strange} other values are no numbers"
        return f"failed: {broken} of {held} limits broken" + (f", {numbers}" if strange else "")

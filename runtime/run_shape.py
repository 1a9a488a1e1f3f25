"""What a schedule depends on besides its configuration."""

from __future__ import annotations

from dataclasses import dataclass

from latentc.errors import TargetError, UsageError


@dataclass(frozen=True)
class RunShape:
    """The run that a schedule is made for.

    Args:
        steps: denoiser calls, 1 or more.
        image_tokens: S, the number of packed latent tokens; None where nothing is packed.
        eta: DDIM's share of fresh noise, 0…1.
    """

    steps: int
    image_tokens: int | None = None
    eta: float = 0.0

    def at_most(self, limit: int, why: str) -> None:
        """Raise UsageError when there are more than ``limit`` steps."""
        if self.steps > limit:
            raise UsageError(
                "--steps", f"is {self.steps}, but {why} {limit}", f"ask for at most {limit} steps"
            )

    def without_eta(self, scheduler: str) -> None:
        """Raise TargetError when fresh noise is asked of a ``scheduler`` that has no eta."""
        if self.eta != 0.0:
            raise TargetError("eta", f"{scheduler} has no eta (asked for {self.eta})", "leave eta at 0")

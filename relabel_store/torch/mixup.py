"""timm's Mixup and CutMix for targets that are distributions already."""

from __future__ import annotations

import torch
from timm.data.mixup import Mixup

from relabel_store.errors import OptionError


class SoftMixup(Mixup):
    """Mix a batch of pictures, and their soft targets in the same proportion.

    A ``timm.data.Mixup`` that does not turn targets into one-hot vectors. Pictures are drawn and mixed by
    timm's own code. A batch of odd size is mixed too; its middle picture meets itself.

    Parameters
    ----------
    mixup_alpha, cutmix_alpha, cutmix_minmax, prob, switch_prob, mode, correct_lam
        As timm's; ``mode`` is ``"batch"``, ``"pair"`` or ``"elem"``.
    label_smoothing
        0: the teacher has smoothed already. Taken so that timm's training arguments fit.
    num_classes
        Length of the class axis of the targets; None takes any.

    Raises
    ------
    OptionError
        Any other smoothing, mode, or no kind of mixing chosen.

    Notes
    -----
    Calling it with pictures ``(n, channels, height, width)``, which are mixed in place, and float targets
    ``(n, num_classes)`` returns both; targets float32. It raises ``OptionError`` for targets of another shape.
    """

    def __init__(
        self,
        mixup_alpha: float = 1.0,
        cutmix_alpha: float = 0.0,
        cutmix_minmax: tuple[float, float] | None = None,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        mode: str = "batch",
        correct_lam: bool = True,
        label_smoothing: float = 0.0,
        num_classes: int | None = None,
    ) -> None:
        if label_smoothing:
            raise OptionError(
                f"label_smoothing: found {label_smoothing}, expected 0; the teacher's targets are soft already"
            )
        if mode not in ("batch", "pair", "elem"):
            raise OptionError(f"mode: found {mode!r}, expected 'batch', 'pair' or 'elem'")
        if not (mixup_alpha > 0 or cutmix_alpha > 0 or cutmix_minmax is not None):
            raise OptionError("mixup: no kind of mixing chosen, expected mixup_alpha or cutmix_alpha above 0")
        super().__init__(  # type: ignore[no-untyped-call] # timm's
            mixup_alpha=mixup_alpha,
            cutmix_alpha=cutmix_alpha,
            cutmix_minmax=cutmix_minmax,
            prob=prob,
            switch_prob=switch_prob,
            mode=mode,
            correct_lam=correct_lam,
            label_smoothing=0.0,
            num_classes=num_classes,
        )

    def __call__(self, images: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return pictures and targets, each mixed with its mirror image in the batch."""
        self._require_soft(images, targets)
        mix = {"batch": self._mix_batch, "pair": self._mix_pair, "elem": self._mix_elem}[self.mode]
        lam = mix(images)  # type: ignore[no-untyped-call] # a number, or (n, 1): the share that stays
        if isinstance(lam, torch.Tensor):
            lam = _with_middle(lam.float(), len(images))
        soft = targets.float()
        return images, soft * lam + soft.flip(0) * (1 - lam)

    def _require_soft(self, images: torch.Tensor, targets: torch.Tensor) -> None:
        n, classes = len(images), self.num_classes
        is_soft = targets.ndim == 2 and targets.is_floating_point()
        if not is_soft or len(targets) != n or targets.shape[1] != (classes or targets.shape[1]):
            raise OptionError(
                f"targets: found {targets.dtype} {tuple(targets.shape)}, expected floats of shape "
                f"(n, num_classes) = ({n}, {classes or 'any'}); pool the label maps first"
            )


def _with_middle(lam: torch.Tensor, n: int) -> torch.Tensor:
    """Return the shares of all pictures; mixing in pairs leaves out the middle of an odd batch."""
    if len(lam) == n:
        return lam
    return torch.cat([lam[: n // 2], lam.new_ones(1, 1), lam[n // 2 :]])

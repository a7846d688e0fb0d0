"""What a finished run answers on labelled images, before and after its training, and how right that is."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from shared_peft.training import Classification, RunFolder, score_classification
from shared_peft.weights import load_checked, read_tensors
from vision.backbones.build import build_from_spec
from vision.trained import RunDescription, load_model
from vision.transforms import Pixels


@dataclass(frozen=True)
class Answers:
    """A model's answers on labelled images.

    Args:
        pixels: the images with their labels.
        classes: class names in the order of the logits.
        logits: shape (images, classes).
    """

    pixels: Pixels
    classes: tuple[str, ...]
    logits: torch.Tensor

    @property
    def probabilities(self) -> torch.Tensor:
        """Softmax of the logits, shape (images, classes)."""
        return self.logits.softmax(dim=1)

    @property
    def predicted(self) -> torch.Tensor:
        """The most likely class of each image, shape (images,)."""
        return self.logits.argmax(dim=1)

    @property
    def confidence(self) -> torch.Tensor:
        """Its probability, in [0, 1], shape (images,)."""
        return self.probabilities.max(dim=1).values

    @property
    def right(self) -> torch.Tensor:
        """Whether it is the label, bool, shape (images,)."""
        return self.predicted == self.pixels.labels

    def scores(self) -> Classification:
        """Return accuracy, macro-F1, per-class F1 and the confusion matrix."""
        return score_classification(self.predicted, self.pixels.labels, len(self.classes))

    def worst_mistakes(self, count: int) -> torch.Tensor:
        """Return the rows of up to ``count`` wrong answers, the most confident first."""
        wrong = torch.nonzero(~self.right).flatten()
        return wrong[self.confidence[wrong].argsort(descending=True, stable=True)][:count]


def spread_rows(total: int, count: int) -> torch.Tensor:
    """Return up to ``count`` rows from all over ``total``, which are usually sorted by class.

    Example:
        >>> spread_rows(10, 3).tolist()
        [0, 4, 9]
    """
    return torch.linspace(0, total - 1, min(count, total)).long()


def model_before(run: Path, description: RunDescription) -> nn.Module | None:
    """Return the model as it was before the run's training, under the run's trained head; None where it is lost.

    With an adapter that is the model without it. Otherwise it is read from the checkpoint the run started from, if the
    file is still there.

    Args:
        run: a finished run folder.
        description: what its model.json holds.
    """
    tuned = run / "model.safetensors"
    if (run / "adapter").is_dir():
        model = build_from_spec(description.spec).model
        load_checked(model, read_tensors(tuned), tuned)
        return model.eval()
    start = RunFolder(run).describe("vision")["config"].get("checkpoint")
    if not start or not Path(start).exists():
        return None
    model = build_from_spec(description.spec, checkpoint=Path(start)).model
    heads = tuple(f"{name}." for name in description.head)
    trained = {
        name: tensor for name, tensor in load_model(run, description).state_dict().items() if name.startswith(heads)
    }
    model.load_state_dict(trained, strict=False)
    return model.eval()

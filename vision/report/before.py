"""The model as it was before a run trained it."""

from pathlib import Path

from torch import nn

from shared_peft.training import RunFolder
from shared_peft.weights import load_checked, read_tensors
from vision.backbones.build import build_from_spec
from vision.trained import RunDescription, load_model


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

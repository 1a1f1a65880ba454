"""Write the goldens, transformers' answers on the small network: run `python tests/goldens/make.py`.

Needs torch and transformers, of the versions in pyproject.toml's `parity`.
"""

import sys
from pathlib import Path

sys.path.extend(str(folder) for folder in Path(__file__).resolve().parents[1:3])

import numpy as np
from parity.oracle import channels_last, predict, recorded_outputs, transformers_model
from small_models import random_tensors

from goldens.cases import CONFIG, FOLDER, PIXELS, PROMPTS, checksum, key


def main() -> None:
    tensors = random_tensors(CONFIG)
    model = transformers_model(CONFIG, tensors)
    for case, prompts in PROMPTS.items():
        arrays = {}
        for multimask_output in (True, False):
            call = {"pixel_values": PIXELS, "multimask_output": multimask_output, **prompts}
            with recorded_outputs(model) as modules:
                outputs = predict(model, **call)
            for name in ("pred_masks", "iou_scores", "object_score_logits"):
                arrays[key(name, multimask_output)] = outputs[name].numpy()
        sparse, dense = modules["prompt_encoder"]
        arrays["sparse"] = sparse.numpy()
        arrays["dense"] = channels_last(dense)
        np.savez_compressed(FOLDER / f"{case}.npz", **arrays)
    features = {f"embedding {i}": channels_last(x) for i, x in enumerate(outputs.image_embeddings)}
    sums = {"weights": checksum(tensors), "pixels": checksum({"pixels": PIXELS})}
    np.savez_compressed(FOLDER / "features.npz", **features, **sums)


if __name__ == "__main__":
    main()

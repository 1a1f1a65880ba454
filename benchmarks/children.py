"""Runs that need a fresh process each: a program's own clock, and the memory it peaked at.

Called by latency.py and memory.py:  python benchmarks/children.py SIDE FOLDER PROMPTS DTYPE
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_START = time.perf_counter()
sys.path.insert(0, str(Path(__file__).parent.parent))


def run_child(
    side: str, folder: Path, prompts: int, dtype: str = "float32", **environment: str
) -> dict[str, float]:
    """Run one side, "ours" or "torch", in a fresh process on a saved model; returns what it measured.

    import, load, first and second: seconds of importing, of loading the weights, and of the first and second
    call of encoder and decoder. loaded and peak: resident memory in MB after loading, and at most.
    """
    return run_json([__file__, side, str(folder), str(prompts), dtype], **environment)


def run_json(script: list[str], **environment: str) -> dict[str, Any]:
    """Run a script and its arguments in a fresh process; returns the JSON of the last line that it prints."""
    command = [sys.executable, *script]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def peak_memory() -> float:
    """Most resident memory of this process so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts the parent's, from before this program was loaded
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def forget_peak() -> None:
    """Let `peak_memory` begin anew with what is resident now, where the system can: on Linux."""
    counter = Path("/proc/self/clear_refs")
    if counter.exists():
        counter.write_text("5")


def _ours(folder: str, dtype: str) -> tuple[float, Any]:
    import jax
    import numpy as np

    from sam2_jax import Sam2Model

    imported = time.perf_counter()
    model = Sam2Model.from_pretrained(folder, dtype=dtype, param_dtype=dtype)

    def call(pixels: Any, points: Any) -> Any:
        outputs = model(np.moveaxis(pixels, 1, -1), points)
        return jax.block_until_ready(outputs.pred_masks)

    return imported, call


def _torch(folder: str, dtype: str) -> tuple[float, Any]:
    import torch
    from transformers import Sam2Model

    imported = time.perf_counter()
    model = Sam2Model.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()

    def call(pixels: Any, points: Any) -> Any:
        with torch.inference_mode():
            labels = torch.ones(points.shape[:3], dtype=torch.int64)
            return model(torch.from_numpy(pixels), torch.from_numpy(points), labels).pred_masks

    return imported, call


def main() -> None:
    """Measure one side in this process and print it as JSON."""
    side, folder, prompts, dtype = sys.argv[1:]
    imported, call = {"ours": _ours, "torch": _torch}[side](folder, dtype)
    loaded = time.perf_counter()
    memory = peak_memory()
    import numpy as np

    rng = np.random.default_rng(0)
    size = json.loads((Path(folder) / "config.json").read_text())["prompt_encoder_config"]["image_size"]
    pixels = rng.standard_normal((1, 3, size, size)).astype(np.float32)
    points = (rng.random((1, int(prompts), 1, 2)) * size).astype(np.float32)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        call(pixels, points)
        seconds.append(time.perf_counter() - start)
    peak = peak_memory()
    result = {"import": imported - _START, "load": loaded - imported, "loaded": memory, "peak": peak}
    print(json.dumps(result | {"first": seconds[0], "second": seconds[1]}))


if __name__ == "__main__":
    main()

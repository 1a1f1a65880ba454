"""Which frames become memories: policies by name, without training; the first is the released one."""

from sam2_jax.video.policies.distractor import DistractorMemory
from sam2_jax.video.policies.motion import MotionMemory
from sam2_jax.video.policies.released import ReleasedMemory
from sam2_jax.video.policies.selected import SelectedMemory

POLICIES: dict[str, type[ReleasedMemory]] = {
    "released": ReleasedMemory,
    "selected": SelectedMemory,
    "distractor": DistractorMemory,
    "motion": MotionMemory,
}

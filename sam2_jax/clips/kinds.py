"""What can be asked for when a clip is tracked; apart, so that the command's help waits for nothing else."""

KINDS = ("masks", "objects", "json", "parquet", "video", "sheet")
"""What can be written of a tracked clip: see `clips.results.targets`."""
USUAL = ("masks", "json", "video", "sheet")

DIRECTIONS = ("forward", "reverse", "both")
"""Ways through a clip: see `clips.tracking.Passes`."""

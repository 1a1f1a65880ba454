"""One script for each question of speed and memory; `python -m benchmarks` answers all in RESULTS.md."""

"""A real two-node Slurm: `make cluster` starts it by scripts/with-slurm."""

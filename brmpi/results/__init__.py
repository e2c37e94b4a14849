"""A run on disk: provenance, diagnostics, snapshots, checkpoints and plots."""

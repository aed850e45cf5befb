"""Recipe, task, trainer, checkpoint, evaluation, prediction and report: one engine for every task."""

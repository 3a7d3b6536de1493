"""evalrunner: choose a model, guard a prompt, price a workload."""

"""What is learned: models, data sets, partitions, strategies, and the two Flower apps made of them.

Imports torch, so it belongs to the trainer and to the ServerApp's process alone. `names` and `run_config` are free of torch.
"""

"""The client: a network process that stays idle while a trainer works, and the trainer that stays warm."""

"""The server: Flower's SuperLink with the toolkit's gate and routes in front, and the ServerApp's process beside it."""

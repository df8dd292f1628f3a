"""What the algorithms share: the agent, its critics, networks, noise, optimisers, replay and execution."""

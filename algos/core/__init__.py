"""The common parts of the algorithms: the agent, its critics, networks, noise, optimisers, replay and execution."""

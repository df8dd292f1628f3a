"""Python imports this at its start when the folder is on PYTHONPATH: the stub tasks are there in every process."""

from stub_envs import register

register()

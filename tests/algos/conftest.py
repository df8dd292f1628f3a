import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Small products are slower on two threads, and on a loaded machine far slower."""
    torch.set_num_threads(1)

import pytest

import minires as mr


@pytest.fixture(autouse=True)
def one_thread():
    """These images are tiny: starting threads for them takes longer than computing, ten times so on a busy machine."""
    before = mr.get_num_threads()
    mr.set_num_threads(1)
    yield
    mr.set_num_threads(before)

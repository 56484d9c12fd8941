"""Settings for all tests."""

from hypothesis import HealthCheck, settings

# A busy machine is no failure: speed is shown by tools/bench, not by tests.
settings.register_profile("p2phub", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("p2phub")


def pytest_addoption(parser):
    parser.addoption("--seeds", type=int, default=100, help="how many seeds of small worlds are simulated (100)")

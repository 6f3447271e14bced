"""Fixtures every suite may use."""

from hypothesis import settings

pytest_plugins = ["services"]

settings.register_profile("tollgate", deadline=None)  # a busy machine is not what the properties are about
settings.load_profile("tollgate")

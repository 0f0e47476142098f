"""Lists the folders of the package, whose root is the root of the repository."""

from setuptools import find_packages, setup

setup(packages=["edgesmith", *(f"edgesmith.{name}" for name in find_packages(exclude=["build*", "dist*"]))])

"""The list of packages; everything else about the project is in setup.cfg."""

from setuptools import find_packages, setup

WEB = "opencluster_web"

setup(
    packages=[
        *find_packages(include=["opencluster", "opencluster.*"]),
        *find_packages(include=["muser_pipeline", "muser_pipeline.*"]),
        WEB,
        *(f"{WEB}.{name}" for name in find_packages("web")),
    ],
    # Nobody's site-packages should get a package that is called "web".
    package_dir={WEB: "web"},
)

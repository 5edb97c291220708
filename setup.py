"""The list of packages; everything else about the project is in setup.cfg."""

from setuptools import find_packages, setup

# Nobody's site-packages should get packages that are called "web" and "deploy".
FOLDERS = {"opencluster_web": "web", "opencluster_deploy": "deploy"}

setup(
    packages=[
        *find_packages(include=["opencluster", "opencluster.*"]),
        *find_packages(include=["muser_pipeline", "muser_pipeline.*"]),
        *FOLDERS,
        *(
            f"{package}.{name}"
            for package, folder in FOLDERS.items()
            for name in find_packages(folder)
        ),
    ],
    package_dir=FOLDERS,
)

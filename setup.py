"""The part that is compiled; everything else about the package is in setup.cfg."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "commbench.transport._play",
            ["commbench/transport/play.c"],
            depends=[
                f"commbench/transport/{name}.h" for name in ("elements", "messages", "program")
            ],
            extra_compile_args=["-O3", "-std=c11", "-Wall", "-Wextra"],
            optional=True,  # without a compiler, Python does the same
        )
    ]
)

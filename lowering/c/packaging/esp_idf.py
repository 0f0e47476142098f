"""An ESP-IDF component with its manifest, an example project, and a test project that prints the self-test's word."""

from __future__ import annotations

from . import Package

COMPONENT = """\
idf_component_register(SRCS{% for name in sources %} "src/{{ name }}"{% endfor %} INCLUDE_DIRS "src")
target_compile_options(${COMPONENT_LIB} PRIVATE {{ flags }})
"""

MANIFEST = """\
version: "1.0.0"
description: The network {{ prefix }} as C without heap or variables
dependencies:
  idf: ">=5.0"
"""

PROJECT = """\
cmake_minimum_required(VERSION 3.16)
include($ENV{IDF_PATH}/tools/cmake/project.cmake)
project({{ prefix }}_%s)
"""

DEPENDS = """\
dependencies:
  {{ prefix }}:
    version: "*"
    override_path: "../../../"
"""

EXAMPLE = """\
/* One inference of {{ prefix }}. */
#include <stdio.h>
{{ before }}

void app_main(void)
{
{{ inference }}
    printf("%d\\n", best);
}
"""

TEST = """\
/* Prints whether {{ prefix }} computes here what its reference does. */
#include <stdio.h>

int {{ prefix }}_selftest(void);

void app_main(void)
{
    printf("%s\\n", {{ prefix }}_selftest() ? "WRONG" : "PASS");
}
"""

PACKAGE = Package(
    {
        "CMakeLists.txt": COMPONENT,
        "idf_component.yml": MANIFEST,
        "examples/example/CMakeLists.txt": PROJECT % "example",
        "examples/example/main/CMakeLists.txt": 'idf_component_register(SRCS "main.c")\n',
        "examples/example/main/idf_component.yml": DEPENDS,
        "examples/example/main/main.c": EXAMPLE,
        "test_apps/selftest/CMakeLists.txt": PROJECT % "selftest",
        "test_apps/selftest/main/CMakeLists.txt": 'idf_component_register(SRCS "main.c" "selftest.c" "harness.c")\n',
        "test_apps/selftest/main/idf_component.yml": DEPENDS,
        "test_apps/selftest/main/main.c": TEST,
    },
    test="test_apps/selftest/main",
    main=False,
)

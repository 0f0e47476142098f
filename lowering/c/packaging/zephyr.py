"""A Zephyr module: `zephyr/module.yml`, an option of Kconfig, a sample, and a test for Twister."""

from __future__ import annotations

from . import Package

MODULE = """\
name: {{ prefix }}
build:
  cmake: zephyr
  kconfig: zephyr/Kconfig
samples:
  - samples
tests:
  - tests
"""

LISTS = """\
if(CONFIG_{{ upper }})
  zephyr_library()
  zephyr_library_sources({% for name in sources %}${CMAKE_CURRENT_LIST_DIR}/../src/{{ name }} {% endfor %})
  zephyr_library_compile_options({{ flags }})
  zephyr_include_directories(${CMAKE_CURRENT_LIST_DIR}/../src)
endif()
"""

KCONFIG = """\
config {{ upper }}
	bool "The network {{ prefix }}"
"""

APPLICATION = """\
cmake_minimum_required(VERSION 3.20.0)
# The module is the folder two above; applications that find it through west need no such line.
list(APPEND ZEPHYR_EXTRA_MODULES ${CMAKE_CURRENT_LIST_DIR}/../..)
find_package(Zephyr REQUIRED HINTS $ENV{ZEPHYR_BASE})
project({{ prefix }}_%s LANGUAGES C)
target_sources(app PRIVATE %s)
"""

CONFIG = "CONFIG_{{ upper }}=y\n"

SAMPLE = """\
/* One inference of {{ prefix }}. */
#include <zephyr/sys/printk.h>
{{ before }}

int main(void)
{
{{ inference }}
    printk("%d\\n", best);
    return 0;
}
"""

TEST = """\
/* Prints whether {{ prefix }} computes here what its reference does. */
#include <zephyr/sys/printk.h>

int {{ prefix }}_selftest(void);

int main(void)
{
    printk("%s\\n", {{ prefix }}_selftest() ? "WRONG" : "PASS");
    return 0;
}
"""

TWISTER = """\
tests:
  {{ prefix }}.selftest:
    harness: console
    harness_config:
      type: one_line
      regex:
        - "^PASS$"
"""

PACKAGE = Package(
    {
        "zephyr/module.yml": MODULE,
        "zephyr/CMakeLists.txt": LISTS,
        "zephyr/Kconfig": KCONFIG,
        "samples/example/CMakeLists.txt": APPLICATION % ("example", "src/main.c"),
        "samples/example/prj.conf": CONFIG,
        "samples/example/src/main.c": SAMPLE,
        "tests/selftest/CMakeLists.txt": APPLICATION % ("selftest", "src/main.c src/selftest.c src/harness.c"),
        "tests/selftest/prj.conf": CONFIG,
        "tests/selftest/testcase.yaml": TWISTER,
        "tests/selftest/src/main.c": TEST,
    },
    test="tests/selftest/src",
    main=False,
)
